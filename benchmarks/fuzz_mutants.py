"""Mutants of models: changes that know what a model is made of, so that most get past the first check."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Mutator = Callable[[onnx.ModelProto, random.Random], None]

LENGTHS = (-1, -(1 << 40), 0, 1, 2, 3, 5, 7, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)
NAMES = (
    "", "x", "y", "h", "\x1b[31mred", "a\nb", "\u202egnp", "class", "x:0", "../up", "a" * 3000, "%s{}", "[red]", "é",
)  # fmt: skip
OPS = (
    "Add", "MatMul", "Gemm", "Relu", "Softmax", "Reshape", "Transpose", "Concat", "Split", "Slice", "Gather", "Shape",
    "Conv", "ConvTranspose", "MaxPool", "ReduceSum", "ReduceMax", "TopK", "NonZero", "Where", "Expand", "Squeeze",
    "Unsqueeze", "Cast", "Identity", "If", "Loop", "Scan", "Slice", "LSTM", "GRU", "Constant", "Range", "Einsum",
    "ScatterND", "LayerNormalization", "ConstantOfShape", "Dropout", "SequenceConstruct", "Optional", "Foo",
)  # fmt: skip

FITS_NOTHING = (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, onnx.checker.ValidationError)
"""What protobuf and onnx raise where they hold no such thing."""


def mutate(model: onnx.ModelProto, draw: random.Random) -> bytes:
    """The bytes of a mutant of a model, which is changed."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        try:
            draw.choice(MUTATORS)(model, draw)
        except FITS_NOTHING:
            continue
    content = model.SerializeToString()
    return damaged(content, draw) if draw.random() < 0.08 else content


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut off, doubled or put in."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 2, 8))):
        place = draw.randrange(max(len(data), 1))
        match draw.randrange(4):
            case 0:
                data[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                del data[place : place + draw.choice((1, 4, len(data)))]
            case 2:
                data[place:place] = data[place : place + draw.choice((1, 16, 200))]
            case _:
                data[place:place] = draw.randbytes(draw.choice((1, 3, 9)))
    return bytes(data)


# ---- what there is --------------------------------------------------------------------------------------------------


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _any_node(model: onnx.ModelProto, draw: random.Random) -> onnx.NodeProto:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    return draw.choice([*nodes, *(node for function in model.functions for node in function.node)])


def _any_tensor(model: onnx.ModelProto, draw: random.Random) -> onnx.TensorProto:
    graphs = list(_graphs(model.graph))
    inside = [a.t for g in graphs for n in g.node for a in n.attribute if a.type == onnx.AttributeProto.TENSOR]
    return draw.choice([*(tensor for graph in graphs for tensor in graph.initializer), *inside])


def _any_value(model: onnx.ModelProto, draw: random.Random) -> onnx.ValueInfoProto:
    return draw.choice([value for g in _graphs(model.graph) for value in (*g.input, *g.output)])


def _any_name(model: onnx.ModelProto, draw: random.Random) -> str:
    names = [name for g in _graphs(model.graph) for node in g.node for name in (*node.input, *node.output)]
    return draw.choice([*names, *(tensor.name for tensor in model.graph.initializer)])


# ---- tensors --------------------------------------------------------------------------------------------------------


def other_shape(model: onnx.ModelProto, draw: random.Random) -> None:
    """Another length, one more axis or fewer; the numbers stay."""
    tensor = _any_tensor(model, draw)
    match draw.randrange(5):
        case 0 if tensor.dims:
            tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(LENGTHS)
        case 1:
            tensor.dims.extend([1] * draw.choice((1, 2, 30, 70)))
        case 2 if tensor.dims:
            del tensor.dims[draw.randrange(len(tensor.dims))]
        case _:
            tensor.dims[:] = list(tensor.dims)[::-1]


def other_numbers(model: onnx.ModelProto, draw: random.Random) -> None:
    """Right in shape: NaN, endless, huge, zero or negative."""
    tensor = _any_tensor(model, draw)
    array = numpy_helper.to_array(tensor).copy()
    if array.dtype.kind == "f":
        values: tuple[Any, ...] = (np.nan, np.inf, -np.inf, 3e38, 0, -1)
    else:
        values = tuple(np.array(n).astype(array.dtype) for n in LENGTHS)
    flat = array.reshape(-1)
    flat[slice(None) if draw.random() < 0.4 else draw.randrange(max(flat.size, 1))] = draw.choice(values)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def smaller_or_larger(model: onnx.ModelProto, draw: random.Random) -> None:
    """Consistent in itself, and no more fit for its place."""
    tensor = _any_tensor(model, draw)
    array = numpy_helper.to_array(tensor)
    axis = draw.randrange(max(array.ndim, 1))
    new = (
        np.concatenate([array, array], axis)
        if draw.random() < 0.5
        else np.take(array, range(array.shape[axis] // 2), axis)
    )
    tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))


def other_type(model: onnx.ModelProto, draw: random.Random) -> None:
    """Another type for the same bytes, or for the same numbers."""
    tensor = _any_tensor(model, draw)
    if draw.random() < 0.5:
        tensor.data_type = draw.choice((*range(27), 99, -1))
        return
    array = numpy_helper.to_array(tensor).astype(draw.choice(("f2", "f8", "i4", "u1", "?", "c8")))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def other_bytes(model: onnx.ModelProto, draw: random.Random) -> None:
    """More or fewer bytes than the shape asks for, or a list of entries beside them."""
    tensor = _any_tensor(model, draw)
    match draw.randrange(5):
        case 0:
            tensor.raw_data = tensor.raw_data * 2
        case 1:
            tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
        case 2:
            tensor.float_data.extend([1.0] * draw.choice((1, 5)))
        case 3:
            tensor.ClearField("raw_data")
        case _:
            tensor.string_data.append(b"\xff")


def outside(model: onnx.ModelProto, draw: random.Random) -> None:
    """Numbers that lie in a file, or are said to."""
    tensor = _any_tensor(model, draw)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = ("weights", "none", "/etc/hostname", "../up", "a" * 5000, "a\0b", "", ".", "weights/x", "é")
    tensor.external_data.add(key="location", value=draw.choice(places))
    for key in ("offset", "length"):
        if draw.random() < 0.5:
            tensor.external_data.add(key=key, value=draw.choice(("0", "4", "-4", "x", str(1 << 62), "1e3")))


# ---- nodes ----------------------------------------------------------------------------------------------------------


def other_op(model: onnx.ModelProto, draw: random.Random) -> None:
    """Another op with the same operands."""
    node = _any_node(model, draw)
    node.op_type = draw.choice(OPS)
    if draw.random() < 0.1:
        node.domain = draw.choice(("com.microsoft", "bar", "ai.onnx.ml", "ai.onnx"))


def other_operand(model: onnx.ModelProto, draw: random.Random) -> None:
    """One operand more, less or another."""
    node = _any_node(model, draw)
    match draw.randrange(4):
        case 0:
            node.input.append(draw.choice(("", _any_name(model, draw))))
        case 1 if node.input:
            del node.input[draw.randrange(len(node.input))]
        case 2:
            node.output.append(draw.choice(("", "more", _any_name(model, draw))))
        case _ if node.input:
            node.input[draw.randrange(len(node.input))] = draw.choice(("", "nothing", _any_name(model, draw)))


def other_attribute(model: onnx.ModelProto, draw: random.Random) -> None:
    """Another value, or an attribute that the op does not have."""
    node = _any_node(model, draw)
    lists = ([1, 2], [0, 0, 0], [], ["a"], [-1, 1 << 40])
    value = draw.choice((*LENGTHS, 0.5, float("nan"), "text", b"\xff", *lists, np.zeros(2, "f4")))
    mutant = numpy_helper.from_array(value, "v") if isinstance(value, np.ndarray) else value
    known = [attribute.name for attribute in node.attribute]
    name = draw.choice(
        [*known, "axis", "perm", "group", "to", "keepdims", "kernel_shape", "hidden_size", "value", "foo"]
    )
    for k, attribute in enumerate(node.attribute):
        if attribute.name == name:
            del node.attribute[k]
            break
    if draw.random() < 0.85:
        node.attribute.append(
            helper.make_attribute(name, mutant, attr_type=None if mutant != [] else onnx.AttributeProto.INTS)
        )


def node_gone_or_doubled(model: onnx.ModelProto, draw: random.Random) -> None:
    """One node less or more, or the nodes in another order."""
    graph = draw.choice(list(_graphs(model.graph)))
    place = draw.randrange(len(graph.node))
    match draw.randrange(4):
        case 0:
            del graph.node[place]
        case 1:
            graph.node.append(graph.node[place])
        case 2:
            nodes = list(graph.node)
            draw.shuffle(nodes)
            copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        case _:
            twin = graph.node.add()
            twin.CopyFrom(graph.node[place])
            twin.output[:] = [f"{name}_twin" for name in twin.output]


def in_a_branch(model: onnx.ModelProto, draw: random.Random) -> None:
    """A node moves into both branches of an If."""
    graph = model.graph
    place = draw.randrange(len(graph.node))
    node = onnx.NodeProto.FromString(graph.node[place].SerializeToString())
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    flag = helper.make_node("Constant", [], ["flag_"], value=numpy_helper.from_array(np.array(draw.random() < 0.5)))
    bodies = [helper.make_graph([node], name, [], outputs) for name in ("then", "else")]
    if draw.random() < 0.3:
        identity = [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
        bodies[1] = helper.make_graph(identity, "else", [], outputs[:1])
    choice = helper.make_node("If", ["flag_"], list(node.output), then_branch=bodies[0], else_branch=bodies[1])
    nodes = [*graph.node[:place], flag, choice, *graph.node[place + 1 :]]
    copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    del graph.node[:]
    graph.node.extend(copies)


# ---- ends and names -------------------------------------------------------------------------------------------------


def other_end(model: onnx.ModelProto, draw: random.Random) -> None:
    """Another shape or type of an input or output, or none, or no tensor at all."""
    value = _any_value(model, draw)
    kind = value.type.tensor_type
    match draw.randrange(8):
        case 0 | 1 if kind.shape.dim:
            kind.shape.dim[draw.randrange(len(kind.shape.dim))].dim_value = draw.choice(LENGTHS)
        case 2 if kind.shape.dim:
            kind.shape.dim[draw.randrange(len(kind.shape.dim))].dim_param = draw.choice(NAMES)
        case 3:
            kind.shape.dim.add().dim_value = draw.choice(LENGTHS)
        case 4 if kind.shape.dim:
            del kind.shape.dim[draw.randrange(len(kind.shape.dim))]
        case 5:
            kind.elem_type = draw.choice((*range(24), 99))
        case 6:
            kind.ClearField("shape")
        case _:
            value.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def more_ends(model: onnx.ModelProto, draw: random.Random) -> None:
    """An output that is an input or a weight, one twice, one less."""
    graph = model.graph
    match draw.randrange(4):
        case 0:
            graph.output.append(helper.make_tensor_value_info(_any_name(model, draw), TensorProto.FLOAT, None))
        case 1:
            graph.output.append(graph.output[0])
        case 2:
            graph.input.append(helper.make_tensor_value_info(_any_name(model, draw), TensorProto.FLOAT, None))
        case _:
            ends = draw.choice((graph.input, graph.output))
            del ends[draw.randrange(len(ends))]


def other_name(model: onnx.ModelProto, draw: random.Random) -> None:
    """A value is called otherwise, everywhere."""
    old, new = _any_name(model, draw), draw.choice(NAMES)
    for graph in _graphs(model.graph):
        for named in (*graph.input, *graph.output, *graph.initializer, *graph.node):
            if named.name == old:
                named.name = new
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        if draw.random() < 0.3:
            _any_node(model, draw).name = new


def other_header(model: onnx.ModelProto, draw: random.Random) -> None:
    """Another opset or version, a function of another opset, metadata."""
    match draw.randrange(5):
        case 0 | 1:
            model.opset_import[0].version = draw.choice((1, 7, 11, 13, 18, 21, 24, 999, -1, 0))
        case 2:
            model.ir_version = draw.choice((1, 3, 8, 13, 999, -1, 0))
        case 3 if model.functions:
            model.functions[0].opset_import[0].version = draw.choice((1, 9, 12, 13, 18, 999))
        case _:
            model.metadata_props.add(key=draw.choice(NAMES), value=draw.choice(NAMES))


MUTATORS: tuple[Mutator, ...] = (
    other_shape, other_numbers, other_numbers, smaller_or_larger, smaller_or_larger, other_type, other_bytes, outside,
    other_op, other_op, other_operand, other_operand, other_attribute, other_attribute, node_gone_or_doubled, outside,
    in_a_branch, other_end, other_end, more_ends, other_name, other_header,
)  # fmt: skip
