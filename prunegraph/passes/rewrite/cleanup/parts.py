"""Parts: projections that Normalize took apart are one again, their results taken apart by a Split.

One product costs what three of a third cost, and the file has the weights that it had.  What an exporter wrote as
separate products stays separate: runtimes know the attention by them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import late, lies_in_file, read_weight
from prunegraph.arrays import Array
from prunegraph.passes.rewrite.provenance import part_of
from prunegraph.runtime.edit import Editor, Insertion


@dataclass(frozen=True, slots=True)
class Projection:
    """How an op projects.

    Attributes:
        weight: The axis of its second input that makes the outputs.
        output: The axis that they lie along.
    """

    weight: int
    output: int


def join_parts(graph: ir.Graph) -> None:
    """Join projections of one input that were one before Normalize, in place."""
    parts: dict[str, list[tuple[int, ir.Node]]] = defaultdict(list)
    for node in graph:
        part = part_of(node)
        if part is not None and _projection(node) is not None:
            parts[part[0]].append((part[1], node))
    editor = Editor(graph)
    for slots in parts.values():
        nodes = [node for _, node in sorted(slots, key=lambda each: each[0])]
        if len(nodes) > 1 and _alike(nodes):
            _join(editor, nodes)


def _projection(node: ir.Node) -> Projection | None:
    """How a node projects by a weight of its own; None for other ops."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.domain not in ("", "ai.onnx") or weight is None or not _is_own(weight):
        return None
    assert weight.const_value is not None
    match node.op_type:
        case "MatMul" if len(weight.const_value.shape) == 2:
            return Projection(1, -1)
        case "Gemm" if not node.attributes.get_int("transA", 0):
            return Projection(0 if node.attributes.get_int("transB", 0) else 1, 1)
        case "Conv" if node.attributes.get_int("group", 1) == 1:
            return Projection(0, 1)
    return None


def _is_own(value: ir.Value) -> bool:
    """Whether a value is a float constant that nothing else reads."""
    tensor = value.const_value if value.is_initializer() and not value.is_graph_input() else None
    return tensor is not None and tensor.dtype.is_floating_point() and len(value.uses()) == 1


def _alike(nodes: Sequence[ir.Node]) -> bool:
    """Whether nodes differ in nothing but weights."""
    first = nodes[0]
    return all(
        node.op_type == first.op_type
        and node.inputs[0] is first.inputs[0]
        and len(node.inputs) == len(first.inputs)
        and all(value is not None and _is_own(value) for value in node.inputs[2:])
        and {name: each.value for name, each in node.attributes.items()}
        == {name: each.value for name, each in first.attributes.items()}
        and not node.outputs[0].is_graph_output()
        for node in nodes
    )


def _join(editor: Editor, nodes: Sequence[ir.Node]) -> None:
    first, how = nodes[0], _projection(nodes[0])
    assert how is not None
    here = editor.at(first).before()
    sizes = [_length(node.inputs[1], how.weight) for node in nodes]
    weights = [_concatenated(editor, [node.inputs[1] for node in nodes], how.weight)]
    weights += [_concatenated(editor, parts, 0) for parts in zip(*(node.inputs[2:] for node in nodes), strict=True)]
    ends = list(nodes)
    value = _whole(here, first, first.inputs[0], *weights)
    biases = [_bias(node) for node in nodes] if first.op_type == "MatMul" else []
    biased = [each for each in biases if each is not None]
    if len(biased) == len(nodes):
        ends = [adding for adding, _ in biased]
        value = _whole(here, ends[0], value, _concatenated(editor, [bias for _, bias in biased], 0))
    _split(here, value, sizes, how.output, ends)


def _bias(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """The Add that alone reads a projection, if it adds one number an output, and these numbers."""
    uses, weight = list(node.outputs[0].uses()), node.inputs[1]
    if len(uses) != 1 or weight is None or weight.const_value is None:
        return None
    adding, index = uses[0]
    if part_of(adding) is None:
        return None  # it came later, and has a name of its own
    bias = adding.inputs[1 - index] if adding.op_type == "Add" and not adding.outputs[0].is_graph_output() else None
    if bias is None or not _is_own(bias) or bias.const_value is None:
        return None
    return (adding, bias) if bias.const_value.shape.dims == weight.const_value.shape.dims[-1:] else None


def _length(value: ir.Value | None, axis: int) -> int:
    assert value is not None and value.const_value is not None
    return int(value.const_value.shape.numpy()[axis])


def _concatenated(editor: Editor, values: Sequence[ir.Value | None], axis: int) -> ir.Value:
    """Parts of a constant as one, under the name that it had."""
    tensors = [value.const_value for value in values if value is not None and value.const_value is not None]
    first, dtype = values[0], tensors[0].dtype
    assert first is not None

    def joined() -> Array:
        return np.concatenate([read_weight(tensor) for tensor in tensors], axis)

    if not any(map(lies_in_file, tensors)):
        return editor.constant(ir.tensor(joined(), dtype=dtype), _name_of_whole(first), like=first)
    shape = list(tensors[0].shape.numpy())
    shape[axis] = sum(int(tensor.shape.numpy()[axis]) for tensor in tensors)
    whole = late(joined, dtype, tuple(shape), _name_of_whole(first))
    return editor.constant(whole, _name_of_whole(first), like=first)


def _name_of_whole(part: ir.Value | ir.Node) -> str:
    whole = part_of(part)
    return whole[0] if whole is not None else f"{part.name}/joined"


def _whole(here: Insertion, part: ir.Node, *inputs: ir.Value | None) -> ir.Value:
    """What nodes such as `part` make in parts, made as one."""
    node = here.node(part.op_type, *inputs, name=_name_of_whole(part), like=part, copied=part.attributes.values())
    value, old = node.outputs[0], part.outputs[0]
    value.name, value.shape = here.editor.unused(_name_of_whole(old)), None
    return value


def _split(here: Insertion, value: ir.Value, sizes: Sequence[int], axis: int, ends: Sequence[ir.Node]) -> None:
    """Let the parts of a value stand in for what separate nodes made."""
    name, count = f"{value.name}/Split", len(sizes)
    if here.editor.graph.opset_imports.get("", 13) < 13:
        node = here.node("Split", value, outputs=count, name=name, axis=axis, split=list(sizes))
    else:
        stated = here.constant(np.array(sizes, dtype=np.int64), f"{value.name}/parts")
        node = here.node("Split", value, stated, outputs=count, name=name, axis=axis)
    for end, part in zip(ends, node.outputs, strict=True):
        part.type, part.shape = end.outputs[0].type, end.outputs[0].shape
        here.replace(end.outputs[0], part)
