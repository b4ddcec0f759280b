"""The steps of pruning an analysed model, one function each: score, select, rewrite and prove, repair."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.cost import count_macs, count_parameters
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.slots import Keeps
from prunegraph.analyzed import Analyzed, turned, with_folded
from prunegraph.clock import Clock
from prunegraph.errors import NothingToPrune, UsageError
from prunegraph.observe.cache import default_cache
from prunegraph.observe.gradients import Backward
from prunegraph.observe.stream import Data, Inputs, SampleProgress
from prunegraph.passes.choose.head_filter import Filtered, FilterOptions, filter_candidates
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.choose.select_units import Targets, choose_targets, in_scope, rank_and_keep
from prunegraph.passes.choose.whole_layers import with_whole
from prunegraph.passes.dead import fold_constants, select_dead
from prunegraph.passes.repair import SAMPLES, Gram, Outcome, Repaired, repaired
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.for_runtime import write_forms
from prunegraph.passes.rewrite.nest import nest
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.passes.rotate import rotate_groups
from prunegraph.passes.rotate.refit_scores import refit_scores
from prunegraph.passes.score import Context, KindScorers, observe_for, score_with, with_stand_ins
from prunegraph.proof import prove
from prunegraph.report import GroupReport, Report

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Analyzed)


def find_targets(analyzed: Analyzed, amount: Amount, scorers: KindScorers) -> Targets:
    """How much of which group shall stay; see `choose_targets`."""
    return choose_targets(analyzed.analysis, analyzed.normalized, amount, analyzed.scope, scorers)


def rotate(analyzed: T, groups: Mapping[str, int | None], data: Data | None = None, clock: Clock | None = None) -> T:
    """Turn heads and residual streams, by data or by the weights alone; see `passes.rotate.rotate_groups`.

    Groups that may not be turned stay what they are; where nothing turns, so does the model.
    """
    clock = clock or Clock()
    with clock.step("rotate"):
        inputs = analyzed.inputs(data) if data is not None else None
        model = analyzed.normalized.model
        rotated = rotate_groups(model, analyzed.analysis, groups, inputs, cache=default_cache(), progress=clock.count)
    return turned(analyzed, rotated)


def without_dead(analyzed: T, clock: Clock | None = None) -> tuple[T, Selection]:
    """The model with constant units moved into biases, and the selection that removes all dead units.

    Raises:
        NothingToPrune: no unit is dead or constant, as far as weights tell.
    """
    clock = clock or Clock()
    with clock.step("dead units"):
        analyzed = with_folded(analyzed, [])
        while folded := fold_constants(analyzed.normalized, analyzed.analysis, analyzed.normalized.settled):
            analyzed = with_folded(analyzed, [folded])
        among = {group.id for group in analyzed.analysis.groups if in_scope(group, analyzed.scope)}
        selection = select_dead(analyzed.normalized.model, analyzed.analysis, among)
    if not selection.keep:
        hint = "units that contribute little are no dead ones: give a ratio; scores tell which contribute least"
        raise NothingToPrune("no unit is dead or constant, as far as weights tell", hint=hint)
    return analyzed, selection


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
        streams = analyzed.rotated is not None and bool(analyzed.rotated.streams)
        uncleaned = shrunk.model.clone() if streams else shrunk.model
        _name_lost_doors(analyzed.normalized.model, shrunk.model)
        slim = written_out(cleanup(shrunk.model, analysis.solution, shrunk.lengths), forms)
    proof, rotated = None, analyzed.rotated
    if check:
        with clock.step("verify"):
            proof = prove(analyzed, slim, keeps, data)
            if rotated is not None and rotated.rotation:
                rotated = replace(rotated, error=proof.normalize_error)
    if rotated is not None and rotated.streams:
        gains = rotated.lengthen(uncleaned, keeps)
        slim = written_out(cleanup(uncleaned, analysis.solution, shrunk.lengths), forms)
        rotated = replace(rotated, lengthened=tuple(name for name in gains if name in slim.graph.initializers))
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


def _name_lost_doors(model: ir.Model, slim: ir.Model) -> None:
    """The log names inputs and outputs that go with whole groups, such as caches."""
    for what in ("inputs", "outputs"):
        before, after = (getattr(each.graph, what) for each in (model, slim))
        left = {value.name for value in after}
        if lost := [value.name or "" for value in before if value.name not in left]:
            logger.warning("%s of which nothing is left go: %s", what, ", ".join(lost))


def written_out(slim: ir.Model, forms: tuple[str, ...]) -> ir.Model:
    """A slim model as callers get it: in the forms that were chosen, bodies and branches in their Loops and Ifs."""
    return nest(write_forms(slim, forms))


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


def repair(
    analyzed: Analyzed, selection: Selection, method: str, data: Data, clock: Clock | None = None
) -> tuple[ir.Model | None, Repaired]:
    """Re-fit the weights that read removed units on data; see `refit`."""
    clock = clock or Clock()
    with clock.step("repair"):
        return refit(analyzed, selection, analyzed.inputs(data), method, progress=clock.count)


def refit(
    analyzed: Analyzed,
    selection: Selection,
    inputs: Inputs,
    method: str = "auto",
    *,
    moments: Gram | None = None,
    sweep_exact: bool = True,
    progress: SampleProgress | None = None,
) -> tuple[ir.Model | None, Repaired]:
    """Re-fit the weights that read removed units, and scores of heads that lost dims as they are.

    Args:
        analyzed: The model.
        selection: What stays.
        inputs: What it is re-fitted on.
        method: See `passes.repair.repaired`.
        moments: See there.
        sweep_exact: See there.
        progress: See there.

    Returns:
        The slim model, None where no weight could be improved; and what was done.
    """
    keeps = selection.keeps(analyzed.analysis.groups)
    model = analyzed.normalized.model
    rotated, amended, outcomes = analyzed.rotated, None, tuple[Outcome, ...]()
    if method in ("lstsq", "auto", "sweep"):
        turned = list(rotated.rotation) if rotated is not None else []
        amended, outcomes = refit_scores(model, analyzed.analysis, keeps, inputs.first(SAMPLES), turned)
    slim, done = repaired(
        model,
        analyzed.analysis,
        keeps,
        inputs,
        method,
        moments=moments,
        prepare=rotated.lengthen if rotated is not None else None,
        amended=amended,
        sweep_exact=sweep_exact,
        progress=progress,
    )
    return slim, replace(done, outcomes=(*outcomes, *done.outcomes))


def _cannot_go_whole(analysis: Analysis, refused: Mapping[int, str]) -> UsageError:
    """Why nothing may be left out altogether of some groups."""
    group = next((group for group in analysis.groups if group.dim in refused), None)
    name, why = (group.id, refused[group.dim]) if group else ("a group", next(iter(refused.values())))
    return UsageError(f"{name} cannot go whole: {why}", hint="keep at least one unit of it")
