"""The steps of pruning, one function each: load and analyze, score, select, rewrite, prove, repair, fine-tune."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.cost import count_macs, count_parameters
from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import check_patterns
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.slots import Keeps
from prunegraph.clock import Clock
from prunegraph.errors import NothingToPrune, UsageError, VerificationFailed
from prunegraph.export.convert import Kind, Source, kind_of, open_source
from prunegraph.observe.cache import default_cache
from prunegraph.observe.gradients import Backward
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.choose.head_filter import Filtered, FilterOptions, filter_candidates
from prunegraph.passes.choose.request import Amount, Scope
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.choose.select_units import Targets, choose_targets, rank_and_keep
from prunegraph.passes.choose.whole_layers import with_whole
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.prove.verify import TOLERANCE, Verification, verify
from prunegraph.passes.repair import Repaired, Written, repaired, restored
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.for_runtime import write_forms
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.passes.rotate import (
    Rotated,
    Rotation,
    rotate_as_planned,
    rotate_groups,
    rotation_error,
    tolerance,
)
from prunegraph.passes.score import Context, KindScorers, observe_for, score_with, with_stand_ins
from prunegraph.report import GroupReport, Report

T = TypeVar("T", bound="Analyzed")


@dataclass(frozen=True)
class Analyzed:
    """A model made analysable, and what was found in it.

    Attributes:
        original: The model as it was given.
        normalized: The form of it that is analysed.
        analysis: Its groups and pins.
        kind: What models are given back as.
        scope: Which part of it may change.
        rotated: How its heads were turned; `normalized` is the turned model. None if it is as it was.
    """

    original: ir.Model
    normalized: Normalized
    analysis: Analysis
    kind: Kind = Kind.PROTO
    scope: Scope = field(default_factory=Scope)
    rotated: Rotated | None = None

    def inputs(self, data: Data) -> Inputs:
        """Data for this model, at the sizes that it was found to run at.

        Raises:
            UsageError: they do not fit it.
        """
        return data.inputs(self.original, self.normalized.settled)


def load_and_analyze(
    model: Source,
    scope: Scope | None = None,
    clock: Clock | None = None,
    trace: Mapping[str, Any] | None = None,
    likely: Callable[[ir.Model], Mapping[str, int]] | None = None,
) -> Analyzed:
    """Read a model, make it analysable, and find its groups.

    Args:
        model: Anything that `open_source` reads.
        scope: Which part of it may change.
        clock: Told of the steps.
        trace: What a torch module is traced with, see `open_source`.
        likely: Gives lengths of dynamic dims at which the model is known to run, such as those of data.

    Raises:
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
        UsageError: a pattern matches no graph input or output.
    """
    clock, scope = clock or Clock(), scope or Scope()
    with clock.step("load"):
        original = open_source(model, **(trace or {}))
    io = [value.name or "" for value in (*original.graph.inputs, *original.graph.outputs)]
    check_patterns(scope.allow_io, io, "graph input or output", hint=f"there are {', '.join(io)}")
    with clock.step("normalize"):
        normalized = normalize(original, scope.sizes, likely(original) if likely is not None else None)
    with clock.step("analyze"):
        analysis = analyze_graph(normalized.model.graph, normalized.facts, tuple(scope.allow_io))
        analysis = replace(analysis, params=count_parameters(original.graph))
    return Analyzed(original, normalized, analysis, kind_of(model), scope)


def find_targets(analyzed: Analyzed, amount: Amount, scorers: KindScorers) -> Targets:
    """How much of which group shall stay; see `choose_targets`."""
    return choose_targets(analyzed.analysis, analyzed.normalized, amount, analyzed.scope, scorers)


def rotate(analyzed: T, groups: Sequence[str], data: Data | None = None, clock: Clock | None = None) -> T:
    """Turn the dims of heads in some groups, by data or by the weights alone; see `passes.rotate`.

    Groups that may not be turned stay what they are; where nothing turns, so does the model.
    """
    clock = clock or Clock()
    with clock.step("rotate"):
        inputs = analyzed.inputs(data) if data is not None else None
        model = analyzed.normalized.model
        rotated = rotate_groups(model, analyzed.analysis, groups, inputs, cache=default_cache(), progress=clock.count)
    return turned(analyzed, rotated)


def turned(analyzed: T, rotated: Rotated) -> T:
    """An analysed model whose heads are turned; its analysis is the same."""
    return replace(analyzed, normalized=replace(analyzed.normalized, model=rotated.model), rotated=rotated)


def score_units(
    analyzed: Analyzed,
    scorers: KindScorers,
    groups: Sequence[Group],
    data: Data | None = None,
    clock: Clock | None = None,
    kept: Mapping[str, int] | None = None,
) -> Scores:
    """Observe what the scorers need, and score every unit of some groups.

    Args:
        analyzed: The model.
        scorers: One for all kinds, or one a kind.
        groups: What is to be scored.
        data: What the model is run on, where a scorer needs that.
        clock: Told of the steps.
        kept: By group id how many units shall stay, where the caller says so.

    Raises:
        UsageError: a scorer needs data, or they do not suit it, or it can score none of the groups.
    """
    clock = clock or Clock()
    rotated = analyzed.rotated
    if rotated is not None:  # what others are scored by does not change with the basis
        scorers = rotated.scorers(scorers)
    model = analyzed.normalized.model if rotated is None else rotated.before
    context = Context(model, analyzed.analysis, kept=kept or {})
    if data is not None:
        scorers = with_stand_ins(scorers, groups, context)
    shares = scorers.shares(groups)
    with clock.step("observe"):
        inputs = analyzed.inputs(data) if data is not None else None
        context = observe_for(
            shares, context, inputs, cache=default_cache(), progress=clock.count, backward=gradients()
        )
    with clock.step("score"):
        arrays = score_with(scorers, groups, context) if groups else {}
        reports = {scorer.name: scorer.report(context.of(scorer)) for scorer in shares}
    return Scores(arrays, scorers, context, {name: each for name, each in reports.items() if each is not None})


def gradients() -> Backward | None:
    """What computes gradients; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from prunegraph.torch_twin.backward import backward

    return backward


def select_units(analyzed: Analyzed, scores: Scores, targets: Targets, clock: Clock | None = None) -> Selection:
    """Keep the best units of every group, and take whole groups away where that was asked for.

    Raises:
        NothingToPrune: nothing but whole groups was asked for, and none can go whole.
        UsageError: there are no scores of a group that shall get smaller.
    """
    clock = clock or Clock()
    analysis, amount = analyzed.analysis, targets.amount
    selection = rank_and_keep(analysis.groups, targets, scores, scores.scorers, scores.context)
    with clock.step("layers"):
        model = analyzed.normalized.model
        selection = with_whole(selection, model, analysis, targets.whole, amount.layer_threshold)
    if targets.whole and not selection.keep:
        hint = "the warnings say why; a ratio takes units of them"
        raise NothingToPrune(f"none of {', '.join(targets.whole)} can go whole", hint=hint)
    return selection


def filter_heads(
    analyzed: Analyzed,
    selection: Selection,
    options: FilterOptions,
    data: Data | None = None,
    clock: Clock | None = None,
) -> Filtered:
    """Take back the removal of heads that cost too much on the data."""
    clock = clock or Clock()
    with clock.step("filter"):
        inputs = analyzed.inputs(data) if data is not None else None
        model, analysis = analyzed.normalized.model, analyzed.analysis
        return filter_candidates(model, analysis, selection, inputs, options, progress=clock.count)


def rewrite(
    analyzed: Analyzed,
    selection: Selection,
    *,
    check: bool = True,
    data: Data | None = None,
    clock: Clock | None = None,
    forms: tuple[str, ...] = (),
) -> tuple[ir.Model, Report]:
    """Carry out a selection on an analysed model, and prove the result, on data if there are any.

    Args:
        analyzed: The model.
        selection: What stays.
        check: Prove it.
        data: What the proof runs on, beside random inputs.
        clock: Told of the steps.
        forms: Equal forms that the result is written in, see `passes.rewrite.for_runtime`.

    Raises:
        UsageError: the selection does not fit the model, or a group cannot go whole.
        VerificationFailed: the slim model does not compute what the masked original computes.
    """
    clock = clock or Clock()
    analysis = analyzed.analysis
    keeps = selection.keeps(analysis.groups)
    with clock.step("shrink"):
        shrunk = remove_whole_groups(analyzed.normalized.model, analysis.solution, keeps)
        if shrunk.refused:
            raise _cannot_go_whole(analysis, shrunk.refused)
        slim = write_forms(cleanup(shrunk.model, analysis.solution, shrunk.lengths), forms)
    proof, rotated = None, analyzed.rotated
    if check:
        with clock.step("verify"):
            proof = prove(analyzed, slim, keeps, data)
            if rotated is not None and rotated.rotation:
                rotated = replace(rotated, error=proof.normalize_error)
    report = Report(
        params=(count_parameters(analyzed.original.graph), count_parameters(slim.graph)),
        macs=count_macs(analysis.solution, shrunk.lengths, shrunk.gone),
        sizes=analyzed.normalized.sizes,
        groups=tuple(group_reports(analysis, keeps, shrunk.left)),
        verify=proof,
        seconds=clock.seconds,
        rotate=rotated,
    )
    return slim, report


def group_reports(analysis: Analysis, keeps: Keeps, left: Collection[int] | None) -> Iterator[GroupReport]:
    """The groups of which less is left, those inside of a removed sub-block among them."""
    kinds = {group.dim: group.kind for group in analysis.groups}

    def per(group: Group) -> tuple[str, ...]:
        return tuple(kinds.get(dim, "row") for dim in group.outer)

    for group in analysis.groups:
        if left is not None and group.dim not in left:
            yield GroupReport(group.id, group.kind, group.units, 0, per(group))
        elif group.dim in keeps:
            yield GroupReport(group.id, group.kind, group.units, keeps[group.dim].count, per(group))


SAMPLES = 8
"""So many of the caller's samples does the proof run on."""


def prove(analyzed: Analyzed, slim: ir.Model, keeps: Keeps, data: Data | None = None) -> Verification:
    """Compare a slim model with the masked original, on data if there are any and on random inputs.

    Raises:
        VerificationFailed: they differ by more than rounding.
    """
    proof = _verified(analyzed, slim, keeps, data)
    if not proof.ok:
        turned = analyzed.rotated is not None and analyzed.rotated.rotation
        basis = " --no-rotate leaves heads in their basis," if turned else ""
        raise VerificationFailed(
            f"the slim model differs from the masked original: {proof.reason}; it was discarded",
            hint=f"please report the model;{basis} --exclude leaves out the groups at fault",
        )
    return proof


def _verified(analyzed: Analyzed, slim: ir.Model, keeps: Keeps, data: Data | None) -> Verification:
    """The proof; of a turned model in two halves: turning changed nothing, and the rest as always.

    One comparison shows both where turned weights are stored as finely as others; it is by halves that a weight in 16
    bits may be rounded anew, and that a fault is told to be of one or of the other.
    """
    model, sizes, rotated = analyzed.normalized.model, analyzed.normalized.settled, analyzed.rotated
    inputs = analyzed.inputs(data).first(SAMPLES) if data is not None else None
    feeds = [batch.feeds for batch in inputs.batches()] if inputs is not None else None
    if rotated is None or not rotated.rotation:
        return verify(analyzed.original, model, slim, analyzed.analysis, keeps, feeds, sizes=sizes)
    allowed = tolerance(rotated.before, model)
    if allowed <= TOLERANCE:
        proof = verify(analyzed.original, model, slim, analyzed.analysis, keeps, feeds, sizes=sizes)
        if proof.ok and proof.normalize_error <= allowed:
            return proof
    error = rotation_error(analyzed.original, model, analyzed.analysis, feeds, sizes)
    proof = verify(model, model, slim, analyzed.analysis, keeps, feeds, sizes=sizes)
    turned = error <= allowed
    reason = proof.reason or ("" if turned else f"turning heads into another basis moved the outputs by {error:.1e}")
    return replace(proof, ok=proof.ok and turned, normalize_error=error, reason=reason)


def compare(
    analyzed: Analyzed,
    slim: ir.Model,
    plan: Selection,
    *,
    repair: Written | None = None,
    rotation: Rotation | None = None,
    data: Data | None = None,
    clock: Clock | None = None,
) -> Verification:
    """Compare a slim model with the masked original, whoever made it; nothing of it is trusted but the plan.

    Args:
        analyzed: The original.
        slim: What was made of it.
        plan: What stays of every group that got smaller.
        repair: Which weights were re-fitted: those that Shrink makes stand in for them.
        rotation: How the original was turned before it was cut.
        data: Compare on these, too.
        clock: Told of the steps.

    Raises:
        VerificationFailed: the plan does not fit the model, or the slim model has other inputs or outputs, or does
            not run.
    """
    clock = clock or Clock()
    try:
        keeps = plan.keeps(analyzed.analysis.groups)
        if rotation:
            rotated = rotate_as_planned(analyzed.normalized.model, analyzed.analysis, rotation)
            analyzed = turned(analyzed, rotated)
    except UsageError as error:
        hint = "use the plan written beside the slim model, the model it was made from, and the same --allow-io"
        raise VerificationFailed(f"the plan does not fit the model: {error}", hint=hint) from error
    check_interface(analyzed.original, slim)
    if repair:
        with clock.step("shrink"):
            slim = undo_repair(analyzed, slim, keeps, repair)
    with clock.step("verify"):
        return _verified(analyzed, slim, keeps, data)


def check_interface(model: ir.Model, slim: ir.Model) -> None:
    """Check that a slim model is called as its original is.

    Raises:
        VerificationFailed: it has other inputs or outputs.
    """
    for what in ("inputs", "outputs"):
        before, after = ([value.name for value in getattr(each.graph, what)] for each in (model, slim))
        if before != after:
            raise VerificationFailed(
                f"the slim model has other {what}: {', '.join(map(str, after))} "
                f"instead of {', '.join(map(str, before))}",
                hint="compare a model with what was made of it by pruning",
            )


def undo_repair(analyzed: Analyzed, slim: ir.Model, keeps: Keeps, written: Written) -> ir.Model:
    """A repaired slim model with the weights that Shrink gave it.

    Raises:
        VerificationFailed: it does not have the weights that were re-fitted.
    """
    shrunk = remove_whole_groups(analyzed.normalized.model, analyzed.analysis.solution, keeps)
    bare = dict(shrunk.model.graph.initializers)
    bare |= cleanup(shrunk.model, analyzed.analysis.solution, shrunk.lengths).graph.initializers
    try:
        return restored(slim, bare, written)
    except KeyError as name:
        hint = "use the plan written beside the slim model; weights that another tool has renamed cannot be compared"
        raise VerificationFailed(f"the slim model does not have the re-fitted weight {name}", hint=hint) from None


def repair(
    analyzed: Analyzed, selection: Selection, method: str, data: Data, clock: Clock | None = None
) -> tuple[ir.Model | None, Repaired]:
    """Re-fit the weights that read removed units on data; see `passes.repair`.

    Returns:
        The slim model, None where no weight could be improved; and what was done.
    """
    clock = clock or Clock()
    with clock.step("repair"):
        keeps = selection.keeps(analyzed.analysis.groups)
        inputs = analyzed.inputs(data)
        model = analyzed.normalized.model
        return repaired(model, analyzed.analysis, keeps, inputs, method, progress=clock.count)


def _cannot_go_whole(analysis: Analysis, refused: Mapping[int, str]) -> UsageError:
    """Why nothing may be left out altogether of some groups."""
    group = next((group for group in analysis.groups if group.dim in refused), None)
    name, why = (group.id, refused[group.dim]) if group else ("a group", next(iter(refused.values())))
    return UsageError(f"{name} cannot go whole: {why}", hint="keep at least one unit of it")
