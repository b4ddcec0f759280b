"""The whole way of the data: Normalize, analyze, score, select, Shrink, Cleanup, verify."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.cost import count_macs, count_parameters
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.sizes import Keeps
from prunegraph.errors import NothingToPrune, UsageError, VerificationFailed
from prunegraph.export.doors import Kind, Model, Source, in_kind, kind_of, open_source
from prunegraph.export.onnx import save
from prunegraph.observe.data import Data
from prunegraph.observe.stream import Calibration
from prunegraph.options import Options, Ratio
from prunegraph.passes.choose import choice, seen, wanted
from prunegraph.passes.cleanup import cleanup
from prunegraph.passes.filter import Filtered, FilterOptions, filter_candidates
from prunegraph.passes.normalize import Normalized, normalize
from prunegraph.passes.score import NEEDS, Context, find_scorer
from prunegraph.passes.select import chosen
from prunegraph.passes.shrink import shrink
from prunegraph.passes.verify import Verification, verify
from prunegraph.report import GroupReport, Report

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Analyzed:
    """A model made analysable, and what was found in it."""

    original: ir.Model
    normalized: Normalized
    analysis: Analysis
    kind: Kind = Kind.PROTO


@dataclass(frozen=True)
class PruneResult:
    """A slim model with its plan and its proof.

    Attributes:
        ir_model: The slim model.
        selection: What stays of every group that got smaller.
        report: What was saved, and how that was checked.
        kind: What `model` is.
        filtered: What candidate filtering did, if it was asked for.
    """

    ir_model: ir.Model
    selection: Selection
    report: Report
    kind: Kind = Kind.PROTO
    filtered: Filtered | None = None

    @cached_property
    def model(self) -> Model:
        """The slim model: an `onnx_ir.Model` or an `onnx_graphsurgeon.Graph` if one was given, else a `ModelProto`."""
        return in_kind(self.ir_model, self.kind)

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the model, and beside it `NAME.plan.json` with what was removed; all files appear or none.

        Raises:
            OutputError: the path is the input, or cannot be written.
        """
        return save(self.ir_model, path, companions={f"{Path(path).stem}.plan.json": self.selection.to_json()})


def analyze(
    model: Source,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    allow_io: Sequence[str] = (),
    progress: Progress | None = None,
) -> Analysis:
    """Find every group of a model that may shrink, and why the rest may not.

    Args:
        model: A path, an `onnx.ModelProto`, an `onnx_ir.Model`, an `onnx_graphsurgeon.Graph`, a `torch.nn.Module` or a
            `torch.export.ExportedProgram`; it is not changed.
        example_inputs: Arguments that a module is traced with: a tuple by position, a dict by keyword.
        dynamic_shapes: Which of their axes vary, as `torch.onnx.export` takes it (`{"x": {0: "batch"}}`); by default
            the batch and, for token ids, the sequence.
        allow_io: Patterns of graph inputs and outputs that may shrink with the rest.
        progress: Called with the name of each step.

    Raises:
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
    """
    return find(model, allow_io, Clock(progress), example_inputs, dynamic_shapes).analysis


def prune_graph(
    model: Source,
    ratio: Ratio = 0.5,
    *,
    scorer: str = "magnitude",
    align: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_io: Sequence[str] = (),
    seed: int = 0,
    data: Data | Calibration | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    scorer_options: Mapping[str, Any] | None = None,
    filtering: FilterOptions | None = None,
    verify: bool = True,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Remove units from a model: a physically smaller graph, proven equal to the original minus what was removed.

    >>> from prunegraph import prune_graph
    >>> result = prune_graph("model.onnx", ratio={"head": 0.5, "ffn": 0.3})  # doctest: +SKIP
    >>> result.save("slim.onnx")  # doctest: +SKIP

    Args:
        model: A path, an `onnx.ModelProto`, an `onnx_ir.Model`, an `onnx_graphsurgeon.Graph`, a `torch.nn.Module` or a
            `torch.export.ExportedProgram`; it is not changed.
        ratio: Fraction removed: one number for every exact kind but `qk_dim` and `v_dim`, or one a kind.
        scorer: Which units go first: "magnitude", "random", or "sap" for heads (other kinds then go by magnitude).
        align: Kept numbers are rounded up to a multiple of this.
        include: Patterns of group ids or scopes to prune; all if empty.
        exclude: Patterns of group ids or scopes to leave whole.
        allow_io: Patterns of graph inputs and outputs that may shrink with the rest.
        seed: For scorers that draw.
        data: For scorers that run the model, and for filtering: see `observe.data.open_data`.
        tokenizer: The model's, a folder or a `tokenizer.json`, where the data are texts.
        scorer_options: Options of the scorer itself, such as `SapOptions`.
        filtering: Take back the removal of heads that cost too much on the data, see `FilterOptions`.
        verify: Prove the result, and refuse to return a wrong one.
        example_inputs: Arguments that a module is traced with: a tuple by position, a dict by keyword.
        dynamic_shapes: Which of their axes vary, as `torch.onnx.export` takes it (`{"x": {0: "batch"}}`); by default
            the batch and, for token ids, the sequence.
        progress: Called with the name of each step.

    Raises:
        UsageError: an argument is wrong.
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
        NothingToPrune: no group is left that could get smaller; the message says why.
        VerificationFailed: the slim model does not compute what the masked original computes.
    """
    options = Options(ratio, scorer, align, include, exclude, allow_io, seed, verify, scorer_options or {})
    calibration = calibrated(options, data, tokenizer)
    clock = Clock(progress)
    found = find(model, options.allow_io, clock, example_inputs, dynamic_shapes)
    selection = choose(found, options, clock, calibration)
    filtered = filter_heads(found, selection, filtering, clock, calibration) if filtering is not None else None
    result = apply(found, filtered.selection if filtered else selection, check=options.verify, clock=clock)
    return replace(result, filtered=filtered)


def calibrated(
    options: Options, data: Data | Calibration | None, tokenizer: str | os.PathLike[str] | None = None
) -> Calibration | None:
    """The data, opened; None if none are given.

    Raises:
        UsageError: the scorer does not exist or needs data, or there is something wrong with them.
    """
    find_scorer(options.scorer)
    if data is not None:
        return (data if isinstance(data, Calibration) else Calibration(data, tokenizer)).opened()
    if options.scorer in NEEDS:
        hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
        raise UsageError(f"the scorer {options.scorer!r} needs data to run the model on", hint=hint)
    return None


def find(
    model: Source,
    allow_io: Sequence[str] = (),
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
    doors = [value.name or "" for value in (*original.graph.inputs, *original.graph.outputs)]
    _check_patterns(allow_io, doors, "graph input or output", hint=f"there are {', '.join(doors)}")
    with clock.step("normalize"):
        normalized = normalize(original)
    with clock.step("analyze"):
        analysis = analyze_graph(normalized.model.graph, normalized.facts, allow_io)
    return Analyzed(original, normalized, analysis, kind=kind_of(model))


def choose(
    found: Analyzed, options: Options, clock: Clock | None = None, calibration: Calibration | None = None
) -> Selection:
    """Score the units of every group that shall shrink, and keep the best.

    Raises:
        NothingToPrune: no group is left that could get smaller.
        UsageError: a pattern matches no group, or the data do not suit the scorer.
    """
    clock = clock or Clock()
    names = [name for group in found.analysis.groups for name in (group.id, group.scope)]
    hint = "`prunegraph explain` shows groups; with --json, the id and the scope of each"
    _check_patterns([*options.include, *options.exclude], names, "group", hint=hint)
    groups = wanted(chosen(found.analysis.groups, options.include, options.exclude), options)
    if not groups:
        raise _nothing(found.analysis, options)
    context = Context(found.normalized.model, found.analysis, options.seed, options.scorer_options)
    with clock.step("observe"):
        inputs = calibration.inputs(found.original) if calibration is not None else None
        context = seen(options.scorer, groups, context, inputs, clock.count)
    with clock.step("score"):
        return choice(groups, context, options)


def filter_heads(
    found: Analyzed, selection: Selection, options: FilterOptions, clock: Clock, calibration: Calibration | None
) -> Filtered:
    """Take back the removal of heads that cost too much on the data."""
    with clock.step("filter"):
        inputs = calibration.inputs(found.original) if calibration is not None else None
        model, analysis = found.normalized.model, found.analysis
        return filter_candidates(model, analysis, selection, inputs, options, progress=clock.count)


def apply(found: Analyzed, selection: Selection, *, check: bool = True, clock: Clock | None = None) -> PruneResult:
    """Carry out a selection on an analysed model and prove the result."""
    clock = clock or Clock()
    analysis = found.analysis
    keeps = selection.keeps(analysis.groups)
    lengths = Lengths(analysis.solution, keeps)
    with clock.step("shrink"):
        slim = cleanup(shrink(found.normalized.model, analysis.solution, keeps).model, analysis.solution, lengths)
    proof = None
    if check:
        with clock.step("verify"):
            proof = prove(found, slim, keeps)
    report = Report(
        params=(count_parameters(found.original.graph), count_parameters(slim.graph)),
        macs=count_macs(analysis.solution, lengths, found.normalized.batch, found.normalized.row),
        groups=tuple(GroupReport(g.id, g.kind, g.units, keeps[g.dim].count) for g in analysis.groups if g.dim in keeps),
        verify=proof,
        seconds=clock.seconds,
    )
    return PruneResult(slim, selection, report, found.kind)


def prove(found: Analyzed, slim: ir.Model, keeps: Keeps) -> Verification:
    """Compare a slim model with the masked original.

    Raises:
        VerificationFailed: they differ by more than rounding.
    """
    proof = verify(found.original, found.normalized.model, slim, found.analysis, keeps)
    if not proof.ok:
        worst = max(proof.max_rel_error, proof.normalize_error)
        raise VerificationFailed(
            f"the slim model differs from the masked original by {worst:.2e} of the output's scale; it was discarded",
            hint="please report the model; --exclude leaves out the groups at fault",
        )
    return proof


def verify_files(
    model: Source,
    slim: Source,
    plan: Selection,
    *,
    allow_io: Sequence[str] = (),
    progress: Progress | None = None,
) -> Verification:
    """Compare a slim model with the model that it was made from, whoever made it.

    Args:
        model: The original.
        slim: What was made of it.
        plan: What stays of every group that got smaller, see `Selection.from_json`.
        allow_io: What `prune_graph` was given.
        progress: Called with the name of each step.

    Returns:
        What the comparison saw; `ok` says whether they are equal.

    Raises:
        ModelError: one of them cannot be read, or the ONNX checker rejects it.
        VerificationFailed: the plan does not fit the model, or the slim model has other doors, or does not run.
    """
    clock = Clock(progress)
    found = find(model, allow_io, clock)
    try:
        keeps = plan.keeps(found.analysis.groups)
    except UsageError as error:
        hint = "use the plan written beside the slim model, the model it was made from, and the same --allow-io"
        raise VerificationFailed(f"the plan does not fit the model: {error}", hint=hint) from error
    with clock.step("load"):
        small = open_source(slim)
    _check_doors(found.original, small)
    with clock.step("verify"):
        return verify(found.original, found.normalized.model, small, found.analysis, keeps)


def _check_patterns(patterns: Sequence[str], names: Sequence[str], what: str, *, hint: str) -> None:
    """A pattern that matches nothing is a slip, and one that changes the result in silence."""
    for pattern in patterns:
        if names and not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no {what} matches {pattern!r}", hint=hint)


def _check_doors(model: ir.Model, slim: ir.Model) -> None:
    for what in ("inputs", "outputs"):
        old, new = ([value.name for value in getattr(each.graph, what)] for each in (model, slim))
        if old != new:
            raise VerificationFailed(
                f"the slim model has other {what}: {', '.join(map(str, new))} instead of {', '.join(map(str, old))}",
                hint="compare a model with what was made of it by pruning",
            )


def _nothing(analysis: Analysis, options: Options) -> NothingToPrune:
    """Why no group got smaller, from what is there and from the pins."""
    wanted = sorted(options.ratio) if isinstance(options.ratio, dict) else []
    missing = [kind for kind in wanted if all(g.kind != kind for g in analysis.groups)]
    if analysis.groups and not missing:
        return NothingToPrune(
            "nothing to prune: the ratio, the patterns or the alignment leave every group whole",
            hint="`prunegraph explain` lists the groups and their sizes",
        )
    reasons = [str(pin) for pinned in analysis.pinned for pin in pinned.pins]
    common = max(set(reasons), key=reasons.count) if reasons else "the model has no weights"
    what = f"the model has no group of kind {', '.join(missing)}" if missing else "nothing to prune: no axis is free"
    hint = "`prunegraph explain -v` shows every pin and its node"
    if common.startswith(("graph input", "graph output")):
        hint += "; --allow-io lets inputs and outputs shrink"
    return NothingToPrune(f"{what}; most axes are held by: {common}", hint=hint)


class Clock:
    """Tells the caller which step runs, and remembers how long each took."""

    def __init__(self, progress: Progress | None = None) -> None:
        """Report to `progress`, if anybody listens."""
        self._progress = progress
        self._running = ""
        self.seconds: dict[str, float] = {}

    def count(self, done: int) -> None:
        """Tell how far the running step has come."""
        if self._progress is not None:
            self._progress(f"{self._running}: {done}")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run one step."""
        self._running = name
        if self._progress is not None:
            self._progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
