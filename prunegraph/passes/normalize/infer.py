"""Shapes without running the model: ONNX shape inference at concrete sizes, fed with all integers that follow.

Inference and evaluation take turns: a shape that inference finds lets ONNX Runtime compute the integers that a graph
derives from it (only those nodes run), and these let inference go on behind the next computed Reshape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from prunegraph.analysis.ops import traits_of
from prunegraph.arrays import Array
from prunegraph.errors import first_line
from prunegraph.passes.normalize.exact import impossible
from prunegraph.passes.normalize.slice_assignment import IndexBlock, block_of
from prunegraph.runtime.limits import TRIAL, CannotRun
from prunegraph.runtime.session import run, session_of

KNOWN_UP_TO = 4096
"""Values with more elements are neither folded nor remembered."""

LARGE = 1 << 26
"""Values with more elements are not computed."""

MAX_TURNS = 8


class NotUnderstood(CannotRun):
    """Inference fails whatever the sizes: ONNX Runtime may know better."""


@dataclass(slots=True)
class Seen:
    """What one probe saw: shapes of values, what stated values held, and which of them are all positions of a block."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    held: dict[str, Array] = field(default_factory=dict)
    blocks: dict[str, IndexBlock] = field(default_factory=dict)

    def remember(self, values: Mapping[str, Array], written: Set[str]) -> bool:
        """Keep what is small, and of all positions by which a ScatterND writes whether they are a block.

        Args:
            values: What stated values held.
            written: Names of the indices of a ScatterND.

        Returns:
            Whether there was anything to keep as it is.
        """
        for name in (written & values.keys()) - self.blocks.keys():
            if (block := block_of(values[name])) is not None:
                self.blocks[name] = block
        small = {name: array for name, array in values.items() if array.size <= KNOWN_UP_TO}
        self.held |= small
        return bool(small)


Dims = tuple[int | None, ...]
"""A shape as far as it is known."""

FILLERS = (37, 71)
"""What stands for an unknown length: what comes out alike for both does not hang on it."""


def infer(
    blank: onnx.ModelProto,
    inputs: Mapping[str, Dims],
    constants: Mapping[str, Array],
    stated: Sequence[str],
    written: Set[str],
) -> Seen:
    """All that follows from the sizes of the inputs.

    Args:
        blank: The model, its weights blank.
        inputs: A shape for every input, None for lengths that are to stay open.
        constants: Small constants by name.
        stated: Values that follow from constants and shapes alone.
        written: Names of the indices of a ScatterND.

    Raises:
        CannotRun: the sizes do not fit the model.
    """
    learnt = Seen()
    stated_names = set(stated)
    nodes = [node for node in blank.graph.node if not stated_names.isdisjoint(node.output)]
    for _ in range(MAX_TURNS):
        dims = _infer_once(blank, inputs, learnt.held)
        if not learnt.remember(_evaluate(blank, nodes, dims, {**constants, **learnt.held}), written):
            break
    learnt.shapes = _known(dims)
    for _, reason in impossible(blank.graph.node, learnt.shapes, {**constants, **learnt.held}):
        raise CannotRun(reason)
    return learnt


def static_shapes(
    blank: onnx.ModelProto, inputs: Mapping[str, Dims], constants: Mapping[str, Array]
) -> dict[str, tuple[int, ...]]:
    """What can be told of a model that does not run at these sizes: shapes of what lies before the trouble."""
    try:
        dims = _infer_once(blank, inputs, {}, strict=False)
    except CannotRun:
        return {}
    shapes = _known(dims)
    wrong = {name for node, _ in impossible(blank.graph.node, shapes, constants) for name in node.output}
    for node in blank.graph.node:
        if not wrong.isdisjoint(node.input) or not all(name in dims for name in node.output if name):
            wrong.update(node.output)
    return {name: shape for name, shape in shapes.items() if name not in wrong}


def _known(dims: Mapping[str, Dims]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(n for n in each if n is not None) for name, each in dims.items() if None not in each}


def _infer_once(
    blank: onnx.ModelProto, inputs: Mapping[str, Dims], known: Mapping[str, Array], *, strict: bool = True
) -> dict[str, Dims]:
    concrete = onnx.ModelProto(ir_version=blank.ir_version, opset_import=blank.opset_import)
    graph = concrete.graph
    graph.name = "shapes"
    for declared in blank.graph.input:
        elem = declared.type.tensor_type.elem_type
        graph.input.append(onnx.helper.make_tensor_value_info(declared.name, elem, inputs.get(declared.name)))
    graph.initializer.extend(blank.graph.initializer)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in known.items())
    graph.node.extend(node for node in blank.graph.node if not set(node.output) <= known.keys())
    try:
        inferred = onnx.shape_inference.infer_shapes(concrete, data_prop=True, strict_mode=strict)
    except onnx.shape_inference.InferenceError as error:
        reason = first_line(error)
        raise (NotUnderstood if "[TypeInferenceError]" in reason else CannotRun)(reason) from error
    shapes: dict[str, Dims] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer} | dict(inputs)
    for info in inferred.graph.value_info:
        if info.type.tensor_type.HasField("shape"):
            shapes[info.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in info.type.tensor_type.shape.dim
            )
    return shapes


def _evaluate(
    blank: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], dims: Mapping[str, Dims], known: dict[str, Array]
) -> dict[str, Array]:
    """Compute the stated values that have become computable, and hang on no unknown length."""
    if all(None not in each for each in dims.values()):
        return _evaluate_with(blank, nodes, dims, known, None)
    try:
        first, second = (_evaluate_with(blank, nodes, dims, known, filler) for filler in FILLERS)
    except CannotRun:  # what stands in fits nothing
        return _evaluate_with(blank, nodes, dims, known, None)
    alike = {name for name, array in first.items() if name in second and _equal(array, second[name])}
    return {name: first[name] for name in alike - _hidden(nodes, first.keys() & second.keys(), alike)}


def _hidden(nodes: Sequence[onnx.NodeProto], computed: Set[str], alike: Set[str]) -> set[str]:
    """Values that are alike for both fillers, and hang on them: no filler is 1, as a length may well be.

    What takes entries out of a shape, or computes with lengths, tells the truth where it is alike for two lengths; a
    comparison does not.
    """
    hidden: set[str] = set()
    for node in nodes:
        traits = traits_of(node.op_type, node.domain)
        varies = any(name in computed and name not in alike for name in node.input)
        tells = traits.states_lengths or traits.carries or traits.linear
        if any(name in hidden for name in node.input) or (varies and not tells):
            hidden.update(node.output)
    return hidden


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _evaluate_with(
    blank: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    dims: Mapping[str, Dims],
    known: dict[str, Array],
    filler: int | None,
) -> dict[str, Array]:
    """The same with a length in the place of those that are unknown; without one, what hangs on them is left out."""
    lengths: dict[str, Array] = {}
    available = set(known)
    ready: list[onnx.NodeProto] = []
    for node in nodes:
        if set(node.output) <= available:
            continue
        if node.op_type in ("Shape", "Size"):
            shape = tuple(filler if n is None else n for n in dims.get(node.input[0], (None,)))
            if node.input[0] in dims and None not in shape:
                lengths[node.output[0]] = _stated_by(node, tuple(n for n in shape if n is not None))
                available.add(node.output[0])
        elif all(name in available or not name for name in node.input) and not _is_large(node, dims):
            ready.append(node)
            available.update(node.output)
    values = dict(lengths)
    if ready:
        feeds = {**known, **lengths}
        used = {name for node in ready for name in node.input}
        outputs = [name for node in ready for name in node.output if name]
        small = onnx.helper.make_graph(
            ready,
            "stated",
            [],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [_tensor(array, name) for name, array in feeds.items() if name in used],
        )
        model = onnx.ModelProto(ir_version=blank.ir_version, opset_import=blank.opset_import)
        model.graph.CopyFrom(small)
        values |= zip(outputs, run(session_of(model, trial=True), {}, limits=TRIAL), strict=True)
    return values


def _tensor(array: Array, name: str) -> onnx.TensorProto:
    """A tensor of these values; onnx takes texts as objects only."""
    return numpy_helper.from_array(array.astype(object) if array.dtype.kind in "SU" else array, name)


def _is_large(node: onnx.NodeProto, dims: Mapping[str, Dims]) -> bool:
    """Whether it makes more than anybody would fold."""
    shapes = (dims[name] for name in node.output if name in dims)
    return any(math.prod(n or 1 for n in shape) > LARGE for shape in shapes)


def _stated_by(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Size":
        return np.array(math.prod(shape), dtype=np.int64)
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], dtype=np.int64)


def constants_of(graph: ir.Graph, names: Sequence[str]) -> dict[str, Array]:
    """The values of small initializers."""
    return {
        name: tensor.numpy()
        for name in names
        if name in graph.initializers and (tensor := graph.initializers[name].const_value) is not None
    }
