"""The whole way of the data: Normalize, analyze, score, select, Shrink, Cleanup, verify, repair."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.cost import count_macs, count_parameters
from prunegraph.analysis.names import as_patterns, check_patterns
from prunegraph.analysis.roles import KINDS
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.slots import Keeps
from prunegraph.clock import Clock
from prunegraph.errors import NothingToPrune, UsageError, VerificationFailed
from prunegraph.export.convert import Kind, Source, kind_of, open_source
from prunegraph.observe.data import Data
from prunegraph.observe.gradients import Backward
from prunegraph.observe.stream import Calibration
from prunegraph.passes.choose.head_filter import Filtered, FilterOptions, filter_candidates
from prunegraph.passes.choose.nothing_to_prune import nothing_to_prune
from prunegraph.passes.choose.request import Options
from prunegraph.passes.choose.select_units import (
    observe_for_scorers,
    rank_and_keep,
    scorer_decides,
    scoring_reports,
    target_counts,
)
from prunegraph.passes.choose.whole_layers import WHOLE_KINDS, dropped, names_of, with_whole
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.prove.verify import Verification, verify
from prunegraph.passes.repair import Written, repaired, restored
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.passes.score import Context, ScoringReport, needs_data
from prunegraph.report import GroupReport, Report
from prunegraph.result import PruneResult
from prunegraph.train.options import TrainOptions


@dataclass(frozen=True)
class Analyzed:
    """A model made analysable, and what was found in it."""

    original: ir.Model
    normalized: Normalized
    analysis: Analysis
    kind: Kind = Kind.PROTO
    allow_io: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What stays, and by name of a scorer what it has to say of that."""

    selection: Selection
    accounts: Mapping[str, ScoringReport]


def load_and_analyze(
    model: Source,
    allow_io: str | Sequence[str] = (),
    clock: Clock | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> Analyzed:
    """Read a model, make it analysable, and find its groups.

    Raises:
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
        UsageError: a pattern matches no graph input or output.
    """
    clock = clock or Clock()
    with clock.step("load"):
        original = open_source(model, example_inputs, dynamic_shapes)
    allow_io = as_patterns(allow_io)
    doors = [value.name or "" for value in (*original.graph.inputs, *original.graph.outputs)]
    check_patterns(allow_io, doors, "graph input or output", hint=f"there are {', '.join(doors)}")
    with clock.step("normalize"):
        normalized = normalize(original)
    with clock.step("analyze"):
        analysis = analyze_graph(normalized.model.graph, normalized.facts, allow_io)
        analysis = replace(analysis, params=count_parameters(original.graph))
    return Analyzed(original, normalized, analysis, kind_of(model), tuple(allow_io))


def choose(
    found: Analyzed, options: Options, clock: Clock | None = None, calibration: Calibration | None = None
) -> Selection:
    """What stays; see `select_units`."""
    return select_units(found, options, clock, calibration).selection


def select_units(
    found: Analyzed, options: Options, clock: Clock | None = None, calibration: Calibration | None = None
) -> Decision:
    """Score the units of every group that shall shrink, and keep the best.

    Raises:
        NothingToPrune: no group is left that could get smaller.
        UsageError: a pattern matches no group, or the data do not suit the scorer.
    """
    clock = clock or Clock()
    names = [name for group in found.analysis.groups for name in group.names]
    hint = "`prunegraph explain` shows groups; with --json, the id and the scope of each"
    check_patterns([*options.include, *options.exclude], names, "group", hint=hint)
    keep = target_counts(found.analysis, found.normalized, options)
    groups = [group for group in found.analysis.groups if group.id in keep]
    whole = dropped_group_ids(found.analysis, options)
    if not groups and not whole:
        raise nothing_to_prune(found.analysis, options)
    free = scorer_decides(found.analysis.groups, options)
    asked = {name: count for name, count in keep.items() if name not in free}
    context = Context(found.normalized.model, found.analysis, options.seed, kept=asked)
    with clock.step("observe"):
        inputs = calibration.inputs(found.original) if calibration is not None else None
        context = observe_for_scorers(options.scorers, groups, context, inputs, clock.count, gradients())
    with clock.step("score"):
        selection = rank_and_keep(groups, keep, context, options) if groups else Selection({})
        reports = scoring_reports(options.scorers, groups, context)
    with clock.step("layers"):
        selection = with_whole(selection, found.normalized.model, found.analysis, whole, options.layer_threshold)
    if whole and not selection.keep:
        hint = "the warnings say why; a ratio takes units of them"
        raise NothingToPrune(f"none of {', '.join(whole)} can go whole", hint=hint)
    return Decision(selection, reports)


def gradients() -> Backward | None:
    """What computes gradients; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from prunegraph.torch_twin.backward import backward

    return backward


def dropped_group_ids(analysis: Analysis, options: Options) -> tuple[str, ...]:
    """The ids of the groups that shall go whole.

    Raises:
        UsageError: a pattern matches no group of heads or FFN neurons.
    """
    names = [name for group in analysis.groups if group.kind in WHOLE_KINDS for name in names_of(group)]
    hint = f"whole groups of {', '.join(WHOLE_KINDS)} can go; `prunegraph explain --json` shows their ids and scopes"
    check_patterns(options.drop, names, "group to drop", hint=hint)
    return tuple(group.id for group in dropped(analysis.groups, options.drop))


def open_calibration(
    options: Options,
    data: Data | Calibration | None,
    tokenizer: str | os.PathLike[str] | None = None,
    filtering: FilterOptions | None = None,
    finetune: TrainOptions | None = None,
) -> Calibration | None:
    """The data, opened; None if none are given.

    Raises:
        UsageError: the scorer does not exist, it or filtering needs data, or there is something wrong with them.
    """
    if data is not None:
        given = data if isinstance(data, Calibration) else Calibration(data, tokenizer)
        return replace(given, providers=options.providers or given.providers).opened()
    for kind in filter(options.may_prune, KINDS):
        scorer = options.scorers.of(kind)
        if not needs_data(scorer, kind):
            continue
        hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
        raise UsageError(f"the scorer {scorer.name!r} needs data to run the model on", hint=hint)
    if options.repair not in (None, "none"):
        hint = "give some (data=…, --data FILE), labels are not needed; without data there is no repair"
        raise UsageError(f"the repair {options.repair!r} needs data to run the model on", hint=hint)
    if finetune is not None:
        raise UsageError("fine-tuning needs data", hint="give examples with labels: data=…, --data FILE")
    if filtering is not None and not callable(filtering.metric):
        raise UsageError(
            "filtering needs data", hint="give validation data (data=…, --data FILE), or a function as metric"
        )
    return None


def filter_heads(
    found: Analyzed, selection: Selection, options: FilterOptions, clock: Clock, calibration: Calibration | None
) -> Filtered:
    """Take back the removal of heads that cost too much on the data."""
    with clock.step("filter"):
        inputs = calibration.inputs(found.original) if calibration is not None else None
        model, analysis = found.normalized.model, found.analysis
        return filter_candidates(model, analysis, selection, inputs, options, progress=clock.count)


def apply(
    found: Analyzed,
    selection: Selection,
    *,
    check: bool = True,
    clock: Clock | None = None,
    accounts: Mapping[str, ScoringReport] | None = None,
) -> PruneResult:
    """Carry out a selection on an analysed model and prove the result."""
    clock = clock or Clock()
    analysis = found.analysis
    keeps = selection.keeps(analysis.groups)
    with clock.step("shrink"):
        made = remove_whole_groups(found.normalized.model, analysis.solution, keeps)
        if made.refused:
            raise _cannot_go_whole(analysis, made.refused)
        slim = cleanup(made.model, analysis.solution, made.lengths)
    proof = None
    if check:
        with clock.step("verify"):
            proof = prove(found, slim, keeps)
    report = Report(
        params=(count_parameters(found.original.graph), count_parameters(slim.graph)),
        macs=count_macs(analysis.solution, made.lengths, made.gone),
        sizes=found.normalized.sizes,
        groups=tuple(group_reports(analysis, keeps, made.left)),
        verify=proof,
        seconds=clock.seconds,
        accounts=accounts or {},
    )
    return PruneResult(slim, selection, report, found.kind, allow_io=found.allow_io)


def repair_result(
    found: Analyzed, result: PruneResult, options: Options, clock: Clock, calibration: Calibration | None
) -> PruneResult:
    """Re-fit what reads removed units, after the proof and where data are given; see `passes.repair`."""
    asked = options.repair or "auto"
    if calibration is None or asked == "none":
        return result
    with clock.step("repair"):
        keeps = result.selection.keeps(found.analysis.groups)
        inputs = calibration.inputs(found.original)
        made, what = repaired(found.normalized.model, found.analysis, keeps, inputs, asked, progress=clock.count)
    slim = made or result.ir_model
    params = (result.report.params[0], count_parameters(slim.graph))
    return replace(result, ir_model=slim, report=replace(result.report, params=params, repair=what))


def finetune_result(
    found: Analyzed, result: PruneResult, options: TrainOptions, clock: Clock, calibration: Calibration
) -> PruneResult:
    """Train the slim model again on the data, the original as teacher; see `train.finetune`."""
    from prunegraph.train.finetune import finetune

    with clock.step("finetune"):
        tuned = finetune(
            result.ir_model,
            calibration,
            teacher=found.original,
            progress=lambda what, done, total: clock.count(done),
            **{field.name: getattr(options, field.name) for field in fields(options)},
        )
    return replace(result, ir_model=tuned.ir_model, tuned=tuned)


def undo_repair(found: Analyzed, slim: ir.Model, keeps: Keeps, written: Written) -> ir.Model:
    """A repaired slim model with the weights that Shrink gave it.

    Raises:
        VerificationFailed: it does not have the weights that were re-fitted.
    """
    made = remove_whole_groups(found.normalized.model, found.analysis.solution, keeps)
    bare = dict(made.model.graph.initializers)
    bare |= cleanup(made.model, found.analysis.solution, made.lengths).graph.initializers
    try:
        return restored(slim, bare, written)
    except KeyError as name:
        hint = "use the plan written beside the slim model; weights that another tool has renamed cannot be compared"
        raise VerificationFailed(f"the slim model does not have the re-fitted weight {name}", hint=hint) from None


def group_reports(analysis: Analysis, keeps: Keeps, left: Collection[int] | None) -> Iterator[GroupReport]:
    """The groups of which less is left, those inside of a removed sub-block among them."""
    for group in analysis.groups:
        if left is not None and group.dim not in left:
            yield GroupReport(group.id, group.kind, group.units, 0)
        elif group.dim in keeps:
            yield GroupReport(group.id, group.kind, group.units, keeps[group.dim].count)


def _cannot_go_whole(analysis: Analysis, refused: Mapping[int, str]) -> UsageError:
    """Why nothing may be left out altogether of some groups."""
    group = next((group for group in analysis.groups if group.dim in refused), None)
    name, why = (group.id, refused[group.dim]) if group else ("a group", next(iter(refused.values())))
    return UsageError(f"{name} cannot go whole: {why}", hint="keep at least one unit of it")


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


def prove(found: Analyzed, slim: ir.Model, keeps: Keeps) -> Verification:
    """Compare a slim model with the masked original.

    Raises:
        VerificationFailed: they differ by more than rounding.
    """
    sizes = found.normalized.settled
    proof = verify(found.original, found.normalized.model, slim, found.analysis, keeps, sizes=sizes)
    if not proof.ok:
        worst = max(proof.max_rel_error, proof.normalize_error)
        raise VerificationFailed(
            f"the slim model differs from the masked original by {worst:.2e} of the output's scale; it was discarded",
            hint="please report the model; --exclude leaves out the groups at fault",
        )
    return proof
