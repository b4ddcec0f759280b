"""What people call: `analyze`, `prune_graph`, `verify_files`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.selection import Selection
from prunegraph.clock import Clock, Progress
from prunegraph.errors import UsageError, VerificationFailed
from prunegraph.export.convert import Source, open_source
from prunegraph.observe.data import Data
from prunegraph.observe.stream import Calibration
from prunegraph.passes.choose.head_filter import FilterOptions
from prunegraph.passes.choose.request import Keep, Options, Ratio
from prunegraph.passes.prove.verify import Verification
from prunegraph.passes.prove.verify import verify as compare
from prunegraph.passes.repair import Written
from prunegraph.passes.score import Scorers
from prunegraph.pipeline import (
    apply,
    check_interface,
    filter_heads,
    finetune_result,
    load_and_analyze,
    open_calibration,
    repair_result,
    select_units,
    undo_repair,
)
from prunegraph.result import PruneResult
from prunegraph.train.options import TrainOptions


def analyze(
    model: Source,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    allow_io: str | Sequence[str] = (),
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
    return load_and_analyze(model, allow_io, Clock(progress), example_inputs, dynamic_shapes).analysis


def prune_graph(
    model: Source,
    ratio: Ratio | None = None,
    *,
    scorer: Scorers = "magnitude",
    align: int = 1,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    allow_io: str | Sequence[str] = (),
    seed: int = 0,
    data: Data | Calibration | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    scorer_options: Mapping[str, Any] | None = None,
    filtering: FilterOptions | None = None,
    drop: str | Sequence[str] = (),
    layer_threshold: float = 1.0,
    providers: str | Sequence[str] = (),
    keep: Keep | None = None,
    budget: Mapping[str, float] | None = None,
    kinds: str | Sequence[str] = (),
    repair: str | None = None,
    finetune: TrainOptions | None = None,
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
        ratio: Fraction removed: one number for all `kinds`; or by kind, or by pattern of group ids or scopes, a number
            or a list with one for every such group in the order of the graph (`{"head": 0.5, "ffn": [0.5, 0.25]}`);
            or a JSON or YAML file of that, or the name of a preset such as "snp-deit-base". Without one 0.5, unless
            `keep`, `budget` or `drop` says how much.
        scorer: Which units go first: "magnitude", "random", "activation", "obs", "snp", "taylor"; for heads "michel",
            "cahp" and "sap"; or one a kind (`{"head": "michel", "ffn": "snp"}`). Kinds that a scorer cannot score go by
            magnitude.
        align: Kept numbers are rounded up to a multiple of this.
        include: Patterns of group ids or scopes to prune; all if empty.
        exclude: Patterns of group ids or scopes to leave whole.
        allow_io: Patterns of graph inputs and outputs that may shrink with the rest.
        seed: For scorers that draw.
        data: For scorers that run the model, and for filtering: see `observe.data.open_data`.
        tokenizer: The model's, a folder or a `tokenizer.json`, where the data are texts.
        scorer_options: Options of the scorer itself, the fields of its class; `"snp.gamma"` is for that scorer alone.
        filtering: Take back the removal of heads that cost too much on the data, see `FilterOptions`.
        drop: Patterns of ids or scopes of groups of heads or FFN neurons that go whole, with the sub-block around them:
            `["ffn.3"]`. Without a ratio, nothing else goes.
        layer_threshold: All heads of a layer go where more than this share of them would; 1 lets one stay.
        providers: Execution providers of ONNX Runtime that run the data, the first choice first: `["cuda"]`; the CPU by
            default. The proof is always taken on the CPU.
        keep: How many units stay, by kind or pattern, one number or a list as for `ratio`: `{"head": 6}`; wins over it.
        budget: Fractions of "macs", "params" or "bytes" that are left (`{"macs": 0.5}`): the smallest ratio that meets
            them is found, one for all groups of `kinds` that `ratio` and `keep` do not speak of.
        kinds: What one number and a budget are for; by default every exact kind but `qk_dim` and `v_dim`.
        repair: Re-fit weights that read removed units on the data, after the proof, without gradients and labels:
            "auto" (the default where data are given), "lstsq" (weight and bias), "bias" (the mean of what went) or
            "none"; only where the error on held-out samples falls.
        finetune: Train the slim model again on the data, the original as teacher, after the proof and the repair;
            see `TrainOptions`.
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
    options = Options(
        ratio,
        scorer,
        align,
        include,
        exclude,
        allow_io,
        seed,
        verify,
        scorer_options or {},
        keep=keep or {},
        budget=budget or {},
        kinds=kinds,
        drop=drop,
        layer_threshold=layer_threshold,
        providers=providers,
        repair=repair,
    )
    calibration = open_calibration(options, data, tokenizer, filtering, finetune)
    clock = Clock(progress)
    found = load_and_analyze(model, options.allow_io, clock, example_inputs, dynamic_shapes)
    choice = select_units(found, options, clock, calibration)
    selection = choice.selection
    filtered = filter_heads(found, selection, filtering, clock, calibration) if filtering is not None else None
    selection = filtered.selection if filtered else selection
    result = apply(found, selection, check=options.verify, clock=clock, accounts=choice.accounts)
    result = replace(repair_result(found, result, options, clock, calibration), filtered=filtered)
    return finetune_result(found, result, finetune, clock, calibration) if finetune and calibration else result


def verify_files(
    model: Source,
    slim: Source,
    plan: Selection,
    *,
    repair: Written | None = None,
    allow_io: str | Sequence[str] = (),
    progress: Progress | None = None,
) -> Verification:
    """Compare a slim model with the model that it was made from, whoever made it.

    Args:
        model: The original.
        slim: What was made of it.
        plan: What stays of every group that got smaller, see `Selection.from_json`.
        repair: Which of its weights were re-fitted, as its plan says; those that Shrink makes stand in for them.
        allow_io: What `prune_graph` was given.
        progress: Called with the name of each step.

    Returns:
        What the comparison saw; `ok` says whether they are equal.

    Raises:
        ModelError: one of them cannot be read, or the ONNX checker rejects it.
        VerificationFailed: the plan does not fit the model, or the slim model has other doors, or does not run.
    """
    clock = Clock(progress)
    found = load_and_analyze(model, allow_io, clock)
    try:
        keeps = plan.keeps(found.analysis.groups)
    except UsageError as error:
        hint = "use the plan written beside the slim model, the model it was made from, and the same --allow-io"
        raise VerificationFailed(f"the plan does not fit the model: {error}", hint=hint) from error
    with clock.step("load"):
        small = open_source(slim)
    check_interface(found.original, small)
    if repair:
        with clock.step("shrink"):
            small = undo_repair(found, small, keeps, repair)
    with clock.step("verify"):
        sizes = found.normalized.settled
        return compare(found.original, found.normalized.model, small, found.analysis, keeps, sizes=sizes)
