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

from prunegraph.passes.normalize.slice_assignment import Block, block_of
from prunegraph.runtime.session import Array, CannotRun, run, session_of

KNOWN_UP_TO = 4096
"""Values with more elements are neither folded nor remembered."""

MAX_TURNS = 8


@dataclass(slots=True)
class Seen:
    """What one probe saw: shapes of values, what stated values held, and which of them are all positions of a block."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    held: dict[str, Array] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)

    def remember(self, found: Mapping[str, Array], written: Set[str]) -> bool:
        """Keep what is small, and of all positions by which a ScatterND writes whether they are a block.

        Args:
            found: What stated values held.
            written: Names of the indices of a ScatterND.

        Returns:
            Whether there was anything to keep as it is.
        """
        for name in (written & found.keys()) - self.blocks.keys():
            if (block := block_of(found[name])) is not None:
                self.blocks[name] = block
        held = {name: array for name, array in found.items() if array.size <= KNOWN_UP_TO}
        self.held |= held
        return bool(held)


def infer(
    blank: onnx.ModelProto,
    inputs: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Array],
    stated: Sequence[str],
    written: Set[str],
) -> Seen:
    """All that follows from the sizes of the inputs.

    Args:
        blank: The model, its weights blank.
        inputs: A shape for every input.
        constants: Small constants by name.
        stated: Values that follow from constants and shapes alone.
        written: Names of the indices of a ScatterND.

    Raises:
        CannotRun: the sizes do not fit the model.
    """
    seen = Seen()
    wanted = set(stated)
    nodes = [node for node in blank.graph.node if not wanted.isdisjoint(node.output)]
    for _ in range(MAX_TURNS):
        seen.shapes = _infer_once(blank, inputs, seen.held)
        if not seen.remember(_evaluate(blank, nodes, seen.shapes, {**constants, **seen.held}), written):
            break
    _check_reshapes(blank, seen.shapes)
    return seen


def _check_reshapes(blank: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Inference believes what a Reshape is told; a graph that was traced for short sequences may not run longer ones.

    Raises:
        CannotRun: the output of one has more or fewer elements than its input.
    """
    for node in blank.graph.node:
        if node.op_type == "Reshape" and not {node.input[0], node.output[0]} - shapes.keys():
            before, after = shapes[node.input[0]], shapes[node.output[0]]
            if math.prod(before) != math.prod(after):
                raise CannotRun(f"{node.name} cannot reshape {before} to {after}")


def _infer_once(
    blank: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], held: Mapping[str, Array]
) -> dict[str, tuple[int, ...]]:
    concrete = onnx.ModelProto(ir_version=blank.ir_version, opset_import=blank.opset_import)
    graph = concrete.graph
    graph.name = "shapes"
    for declared in blank.graph.input:
        elem = declared.type.tensor_type.elem_type
        graph.input.append(onnx.helper.make_tensor_value_info(declared.name, elem, inputs.get(declared.name)))
    graph.initializer.extend(blank.graph.initializer)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    graph.node.extend(node for node in blank.graph.node if not set(node.output) <= held.keys())
    try:
        inferred = onnx.shape_inference.infer_shapes(concrete, data_prop=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise CannotRun(str(error).splitlines()[0][:300]) from error
    found = {name: tuple(array.shape) for name, array in held.items()} | dict(inputs)
    for info in inferred.graph.value_info:
        shape = info.type.tensor_type.shape
        if info.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape.dim):
            found[info.name] = tuple(dim.dim_value for dim in shape.dim)
    return found


def _evaluate(
    blank: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, tuple[int, ...]],
    known: dict[str, Array],
) -> dict[str, Array]:
    """Compute the stated values that have become computable."""
    lengths: dict[str, Array] = {}
    available = set(known)
    ready: list[onnx.NodeProto] = []
    for node in nodes:
        if set(node.output) <= available:
            continue
        if node.op_type in ("Shape", "Size"):
            if node.input[0] in shapes:
                lengths[node.output[0]] = _stated_by(node, shapes[node.input[0]])
                available.add(node.output[0])
        elif all(name in available or not name for name in node.input):
            ready.append(node)
            available.update(node.output)
    found = dict(lengths)
    if ready:
        feeds = {**known, **lengths}
        used = {name for node in ready for name in node.input}
        made = [name for node in ready for name in node.output if name]
        small = onnx.helper.make_graph(
            ready,
            "stated",
            [],
            [onnx.ValueInfoProto(name=name) for name in made],
            [numpy_helper.from_array(array, name) for name, array in feeds.items() if name in used],
        )
        model = onnx.ModelProto(ir_version=blank.ir_version, opset_import=blank.opset_import)
        model.graph.CopyFrom(small)
        found |= zip(made, run(session_of(model), {}), strict=True)
    return found


def _stated_by(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Size":
        return np.array(int(np.prod(shape)), dtype=np.int64)
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], dtype=np.int64)


def constants_of(graph: ir.Graph, names: Sequence[str]) -> dict[str, Array]:
    """The values of small initializers."""
    return {
        name: tensor.numpy()
        for name in names
        if name in graph.initializers and (tensor := graph.initializers[name].const_value) is not None
    }
