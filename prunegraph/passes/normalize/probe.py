"""Two probes: run the model at two sizes and write down every shape and every integer that states one.

What exporters annotate is not trusted: most leave shapes out, and some give one extent several names.  Weights do not decide
shapes, so the probes run on blank ones, which need neither memory nor time to load.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.relations import IntArray
from prunegraph.observe.feeds import InputSpec, constant_feeds, input_specs, shape_of, size_plans
from prunegraph.observe.session import Array, CannotRun, open_session, run, widened, widened_feeds

logger = logging.getLogger(__name__)

BLANK_FROM = 4096
"""Float tensors with at least so many elements are blank in a probe."""

KNOWN_UP_TO = 4096
"""Values with more elements are neither folded nor remembered."""

RUNS = ({"batch": 1, "row": 11}, {"batch": 2, "row": 23})

_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
_NOT_TENSORS = {"SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence"}


def stated(graph: ir.Graph) -> dict[str, ir.Value]:
    """Values that follow from constants and from shapes alone, whatever the weights and the data."""
    found = {
        name: value
        for name, value in graph.initializers.items()
        if not value.is_graph_input() and value.const_value is not None and not _blank(value.const_value)
    }
    for node in graph:
        if node.op_type in _RANDOM or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        if node.op_type in ("Shape", "Size") or all(v is None or v.name in found for v in node.inputs):
            found.update((value.name or "", value) for value in node.outputs)
    return found


def _blank(tensor: ir.TensorProtocol) -> bool:
    return tensor.size >= BLANK_FROM and tensor.dtype.is_floating_point() or tensor.size >= 1 << 24


def probe(model: ir.Model) -> tuple[Facts, dict[str, tuple[Array, ...]]]:
    """Learn shapes by running; by static inference where the model cannot be run.

    Returns:
        The facts, and what every stated value held in each probe.
    """
    wide = widened(model)
    try:
        specs = input_specs(wide.graph)
        dynamic = any(isinstance(dim, str) for spec in specs for dim in spec.dims)
        return _probe(wide, specs, RUNS if dynamic else RUNS[:1])
    except (CannotRun, ValueError) as reason:
        logger.warning("the model cannot be run (%s); shapes come from static inference", reason)
        from prunegraph.passes.normalize.infer import infer

        return infer(model), {}


def _probe(
    model: ir.Model, specs: Sequence[InputSpec], runs: Sequence[dict[str, int]]
) -> tuple[Facts, dict[str, tuple[Array, ...]]]:
    values = [value for node in model.graph for value in node.outputs if value.name and node.op_type not in _NOT_TENSORS]
    known = [value for name, value in stated(model.graph).items() if value.producer() is not None]
    blank = _blanked(model, values, known)
    reason = CannotRun("no sizes to try")
    with open_session(blank, optimize=False) as session:
        for plan in size_plans(specs, runs):
            for fill in (1, 0):
                try:
                    seen = []
                    for sizes in plan:
                        feeds = {name: a * a.dtype.type(fill) for name, a in constant_feeds(specs, sizes).items()}
                        seen.append(run(session, widened_feeds(feeds)))
                except CannotRun as error:
                    reason = error
                    continue
                return _facts(model, specs, plan, values, known, seen)
    raise reason


def _blanked(model: ir.Model, values: Sequence[ir.Value], known: Sequence[ir.Value]) -> ir.Model:
    """A copy with blank weights, whose outputs are the shape of every value and what the stated ones hold."""
    twin = model.clone()
    graph = twin.graph
    mine = {value.name: value for node in graph for value in node.outputs}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and _blank(tensor) and not value.is_graph_input():
            lengths = ir.val(f"{name}/lengths", const_value=ir.tensor(np.array(tensor.shape.numpy(), np.int64)))
            zero = ir.tensor(np.zeros(1, tensor.dtype.numpy()))
            node = ir.node("ConstantOfShape", [lengths], {"value": zero}, num_outputs=1)
            graph.initializers.pop(name)
            graph.register_initializer(_named(lengths))
            value.replace_all_uses_with(node.outputs[0])
            node.outputs[0].name = name
            first = next(iter(graph), None)
            graph.insert_before(first, node) if first is not None else graph.append(node)
    outputs = []
    for value in values:
        node = ir.node("Shape", [mine[value.name]], num_outputs=1)
        node.outputs[0].name = f"{value.name}/shape"
        outputs.append(node)
    graph.extend(outputs)
    graph.outputs[:] = [node.outputs[0] for node in outputs] + [mine[value.name] for value in known]
    return twin


def _named(value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    value.dtype = value.const_value.dtype
    value.shape = ir.Shape(value.const_value.shape)
    return value


def _facts(
    model: ir.Model,
    specs: Sequence[InputSpec],
    plan: Sequence[dict[str, int]],
    values: Sequence[ir.Value],
    known: Sequence[ir.Value],
    seen: Sequence[Sequence[Array]],
) -> tuple[Facts, dict[str, tuple[Array, ...]]]:
    shapes: dict[str, tuple[Size, ...]] = dict(_constant_shapes(model, len(plan)))
    for spec in specs:
        per_run = [shape_of(spec, sizes) for sizes in plan]
        shapes[spec.name] = tuple(zip(*per_run, strict=True))
    for k, value in enumerate(values):
        found = [outputs[k] for outputs in seen]
        if all(len(shape) == len(found[0]) for shape in found):
            shapes[value.name or ""] = tuple(tuple(int(n) for n in column) for column in zip(*found, strict=True))
    offset = len(values)
    held = {value.name or "": tuple(outputs[offset + k] for outputs in seen) for k, value in enumerate(known)}
    held = {name: arrays for name, arrays in held.items() if all(a.size <= KNOWN_UP_TO for a in arrays)}
    return Facts(len(plan), shapes, integers(model.graph, held, len(plan))), held


def _constant_shapes(model: ir.Model, probes: int) -> Iterator[tuple[str, tuple[Size, ...]]]:
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            yield name, tuple((int(n),) * probes for n in value.const_value.shape.numpy())


def integers(graph: ir.Graph, held: dict[str, tuple[Array, ...]], probes: int) -> dict[str, tuple[IntArray, ...]]:
    """The small integers among what was seen, those of initializers included."""
    found = {name: arrays for name, arrays in held.items() if arrays[0].dtype.kind in "iu"}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_integer() and tensor.size <= KNOWN_UP_TO:
            found[name] = (tensor.numpy(),) * probes
    return found
