"""What people call: `prune_graph`, `analyze`, `verify`, and the doors of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunegraph.analysis.selection import Selection
from prunegraph.choice import choose
from prunegraph.clock import Clock, Progress
from prunegraph.export.convert import Model, ModelLike, in_kind, kind_of, open_source
from prunegraph.former_keywords import Arguments
from prunegraph.graph import Graph, analyze_source
from prunegraph.observe.data import DataLike
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.amounts import Ratio
from prunegraph.passes.choose.request import Amount, Scope
from prunegraph.passes.dead import Folded
from prunegraph.passes.prove.verify import Verification
from prunegraph.passes.repair import Written
from prunegraph.passes.rotate import Rotation
from prunegraph.passes.score import KindScorers, Scorers
from prunegraph.proof import compare
from prunegraph.quantization.options import Quantize
from prunegraph.request import Repair, Request, Step
from prunegraph.result import PruneResult

if TYPE_CHECKING:
    import onnx_ir as ir


def prune_graph(
    model: ModelLike,
    amount: Amount | Ratio | None = None,
    *,
    scorer: Scorers | KindScorers | None = None,
    data: DataLike | Data | None = None,
    scope: Scope | None = None,
    after: Step | Iterable[Step] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
    **former: Any,
) -> PruneResult:
    """Remove units from a model: a physically smaller graph, proven equal to the original minus what was removed.

    >>> import prunegraph as pg
    >>> result = pg.prune_graph("model.onnx", {"head": 0.5, "ffn": 0.3})  # doctest: +SKIP
    >>> result.save("slim.onnx")  # doctest: +SKIP

    Args:
        model: A path, an `onnx.ModelProto`, an `onnx_ir.Model`, an `onnx_graphsurgeon.Graph`, a
            `torch.export.ExportedProgram`, or what `from_torch` made of a module; it is not changed.
        amount: Fraction removed: one number, or by kind or pattern (`{"head": 0.5, "ffn": [0.5, 0.25]}`), or a file of
            that, or a preset; or an `Amount`, which says more. Without one 0.5.
        scorer: Which units go first: "magnitude", "random", "activation", "obs", "snp", "taylor", and for heads
            "michel", "cahp" and "sap"; or a scorer with its options, such as `scorers.Sap(k=7)`; or a function from a
            group and a context to an array of the group's shape, high for what should stay; or one a kind
            (`{"head": "michel", "ffn": "snp"}`). Where none is given, and kinds that one cannot score, go by magnitude;
            where data are given by activation, `qk_dim` by SNP.
        data: For scorers that run the model, for head filtering and for what follows the proof: a file, rows, arrays,
            or `Data`, which says how they are read and run.
        scope: Which groups may get smaller, and which graph inputs and outputs may shrink with them.
        after: What follows the proof, in order: `Repair`, `Finetune`, `Quantize`. None: `Repair()` with data.
        verify: Prove the result, and refuse to return a wrong one.
        progress: Called with the name of each step.
        former: Keywords that request objects have taken the place of, see `former_keywords.NOW`; they work for one
            release. `ratio` is another word for `amount`.

    Raises:
        UsageError: an argument is wrong.
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
        NothingToPrune: no group is left that could get smaller; the message says why.
        VerificationFailed: the slim model does not compute what the masked original computes.
    """
    given = Arguments(amount, scorer, data, scope, after).take("prune_graph", former)
    request = Request.of(given.amount, given.scorer, given.data, given.scope, given.after, verify)
    graph = analyze_source(model, request.scope, Clock(progress), given.trace, request.data)
    result = choose(graph, request).carried_out(request)
    for step in request.steps:
        result = _follow(result, step, request.data)
    return result


def _follow(result: PruneResult, step: Step, data: Data | None) -> PruneResult:
    """One step after the proof."""
    if isinstance(step, Quantize):
        return result.quantize(data, step)
    if data is None or (isinstance(step, Repair) and step.method == "none"):
        return result
    return result.repair(data, step.method) if isinstance(step, Repair) else result.finetune(data, step)


def analyze(model: ModelLike, *, scope: Scope | None = None, progress: Progress | None = None, **former: Any) -> Graph:
    """Find every group of a model that may shrink, and why the rest may not.

    Args:
        model: See `prune_graph`; it is not changed.
        scope: Which groups may get smaller, and which graph inputs and outputs may shrink with them.
        progress: Called with the name of each step.
        former: Keywords that `Scope` and `from_torch` have taken the place of; they work for one release.

    Returns:
        The analysed model: `groups`, `pins` and `explain()` tell what can go; `score`, `select` and `apply` remove it.

    Raises:
        ModelError: the model cannot be read or traced, or the ONNX checker rejects it.
        UsageError: a pattern matches no graph input or output.
    """
    given = Arguments(scope=scope).take("analyze", former)
    return analyze_source(model, given.scope or Scope(), Clock(progress), given.trace)


def verify_files(
    model: ModelLike,
    slim: ModelLike,
    plan: Selection,
    *,
    repair: Written | None = None,
    rotation: Rotation | None = None,
    dead: Sequence[Folded] | None = None,
    allow_io: str | Iterable[str] = (),
    sizes: Mapping[str, int] | None = None,
    values: Mapping[str, float] | None = None,
    data: DataLike | Data | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare a slim model with the model that it was made from, whoever made it.

    Args:
        model: The original.
        slim: What was made of it.
        plan: What stays of every group that got smaller, see `Selection.load`.
        repair: Which of its weights were re-fitted, as its plan says; those that Shrink makes stand in for them.
        rotation: How the original was turned before it was cut, as the plan says.
        dead: What of constant units was moved into biases before dead units went, as the plan says; None where others
            went. The reference is the original itself then.
        allow_io: The patterns of inputs and outputs that were allowed to shrink.
        sizes: Lengths of dynamic dims, see `Scope`.
        values: Inputs of one value for good, see `Scope`.
        data: Compare on these, too.
        progress: Called with the name of each step.

    Returns:
        What the comparison saw; `ok` says whether they are equal.

    Raises:
        ModelError: one of them cannot be read, or the ONNX checker rejects it.
        VerificationFailed: the plan does not fit the model, or the slim model has other inputs or outputs, or does
            not run.
    """
    clock = Clock(progress)
    opened = Data.open(data)
    allowed = allow_io if isinstance(allow_io, str) else tuple(allow_io)
    scope = Scope(allow_io=allowed, sizes=sizes or {}, values=values or {})
    graph = analyze_source(model, scope, clock, data=opened)
    with clock.step("load"):
        small = open_source(slim)
    return compare(graph, small, plan, repair=repair, rotation=rotation, dead=dead, data=opened, clock=clock)


verify = verify_files


def from_torch(module: Any, inputs: Any = None, *, dynamic_shapes: Any = None) -> ir.Model:
    """A torch module as a model, traced in eval mode; the module is not changed.

    Args:
        module: A `torch.nn.Module`, or a program that `torch.export.export` made of one.
        inputs: Arguments of `forward`: a tuple by position, a dict by keyword. A program needs none.
        dynamic_shapes: Which of their axes vary, as `torch.onnx.export` takes it (`{"x": {0: "batch"}}`); by default
            the batch and, for token ids, the sequence.

    Raises:
        MissingExtra: torch or onnxscript is not installed.
        UsageError: there are no example inputs, or they do not fit.
        ModelError: torch cannot trace the module, or cannot translate it.
    """
    return open_source(module, inputs, dynamic_shapes)


def to_torch(model: ModelLike, *, tie: bool = True) -> Any:
    """A trainable twin of a model, a `torch.fx.GraphModule`; see `prunegraph.torch_twin`.

    Args:
        model: See `prune_graph`.
        tie: Whether weights that the file holds twice, byte for byte, are one parameter.

    Raises:
        ModelError: the model has an op or attribute that there is no torch function for.
        MissingExtra: torch is not installed.
    """
    from prunegraph import torch_twin

    return torch_twin.to_torch(open_source(model), tie=tie)


def to_module(result: PruneResult) -> Any:
    """A slim model as a torch module, with the names and the layout of the module that it came from.

    It runs as the slim model does, and its `state_dict` holds what is left of every tensor under the name that it had,
    turned as the module has it: a smaller module of the original class loads it strictly, where that class can be made
    so small (all layers alike) and computes nothing of a width that was cut.  Of a model that came from a file, names
    and layouts are those of its initializers, as `to_torch` has them.

    Args:
        result: What became of a model that `from_torch` made.

    Returns:
        A `torch.fx.GraphModule` in evaluation mode.

    Raises:
        ModelError: the model has an op or attribute that there is no torch function for.
        MissingExtra: torch is not installed.
    """
    return result.to_module()


def write_back(model: ModelLike, module: Any) -> Model:
    """The model with the weights of its trainable twin, in the kind in which it was given.

    Args:
        model: What `to_torch` was given; it is not changed.
        module: What `to_torch` returned, trained.

    Raises:
        MissingExtra: torch is not installed.
    """
    from prunegraph import torch_twin

    return in_kind(torch_twin.write_back(open_source(model), module), kind_of(model))
