"""Small graphs about constants, outputs, control flow and spelling: what lies around the layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graphs.attention import E, finish, stem
from tests.graphs.builder import Builder, linear

F = 14


def ffn(g: Builder, h: str, layer: str = "", width: int = F) -> str:
    """A residual two-layer FFN."""
    return g("Add", h, linear(g, g("Relu", linear(g, h, f"up{layer}", E, width)), f"down{layer}", width, E))


def packed_gate_up() -> onnx.ModelProto:
    """gate|up in one weight, split in two; SiLU."""
    g = Builder("packed_gate_up")
    h = stem(g)
    gate, up = g("Split", linear(g, h, "gate_up", E, 2 * F, bias=False), axis=-1, n=2)
    y = g("Mul", g("Mul", gate, g("Sigmoid", gate)), up)
    return finish(g, g("Add", h, linear(g, y, "down", F, E, bias=False)))


def interleaved_gate_up() -> onnx.ModelProto:
    """gate and up alternate: [F, 2]."""
    g = Builder("interleaved_gate_up")
    h = stem(g)
    both = g("Reshape", linear(g, h, "gate_up", E, 2 * F), [0, 0, F, 2])
    gate, up = (g("Squeeze", g("Slice", both, [k], [k + 1], [3]), [3]) for k in range(2))
    return finish(g, g("Add", h, linear(g, g("Mul", g("Tanh", gate), up), "down", F, E)))


def layer_norm_decomposed() -> onnx.ModelProto:
    """Nine nodes, as opset 16 and before spell it."""
    g = Builder("layer_norm_decomposed")
    h = stem(g)
    centred = g("Sub", h, g("ReduceMean", h, axes=[-1]))
    variance = g("ReduceMean", g("Pow", centred, 2.0), axes=[-1])
    y = g("Div", centred, g("Sqrt", g("Add", variance, 1e-5)))
    y = g("Add", g("Mul", y, g.weight("scale", E, scale=1.0)), g.weight("bias", E))
    return finish(g, ffn(g, y))


def rms_norm_decomposed() -> onnx.ModelProto:
    g = Builder("rms_norm_decomposed", opset=18)
    h = stem(g)
    mean = g("ReduceMean", g("Mul", h, h), [-1])
    y = g("Mul", h, g("Reciprocal", g("Sqrt", g("Add", mean, 1e-6))))
    return finish(g, ffn(g, g("Mul", g.weight("scale", E, scale=1.0), y)))


def tied_embeddings() -> onnx.ModelProto:
    """One table of 23 words is the embedding and, transposed, the head."""
    g = Builder("tied_embeddings")
    ids = g.input("ids", "B", "S", dtype=TensorProto.INT64)
    h = ffn(g, g("Gather", g.weight("table", 23, E, scale=1.0), ids))
    y = g("MatMul", h, g("Transpose", "table", perm=[1, 0]))
    g.output(y, "B", "S", 23)
    return g.model()


def positions() -> onnx.ModelProto:
    """Learnt positions looked up by Range over the length, and a mask turned into a bias."""
    g = Builder("positions")
    ids = g.input("ids", "B", "S", dtype=TensorProto.INT64)
    length = g("Squeeze", g("Shape", ids, start=1, end=2), [0])
    where = g("Range", np.array(0), length, np.array(1))
    words = g("Gather", g.weight("words", 23, E, scale=1.0), ids)
    h = g("Add", words, g("Gather", g.weight("places", 40, E, scale=1.0), where))
    return finish(g, ffn(g, h))


def shared_zero_bias() -> onnx.ModelProto:
    """One zero bias serves layers that have nothing in common but their width."""
    g = Builder("shared_zero_bias")
    h = stem(g)
    g.const("zeros", np.zeros(F), np.float32)
    for layer in "01":
        up = g("Add", g("MatMul", h, g.weight(f"w_up{layer}", E, F)), "zeros")
        h = g("Add", h, linear(g, g("Tanh", up), f"down{layer}", F, E))
    return finish(g, h)


def output_in_the_middle() -> onnx.ModelProto:
    """An FFN's inside is a graph output too, a second FFN's is not."""
    g = Builder("output_in_the_middle")
    h = stem(g)
    up = g("Relu", linear(g, h, "up", E, F))
    g.output(up, "B", "S", F)
    h = g("Add", h, linear(g, up, "down", F, E))
    return finish(g, ffn(g, h, "2", 16))


def several_outputs() -> onnx.ModelProto:
    """Two heads on one trunk and a scalar."""
    g = Builder("several_outputs")
    h = ffn(g, stem(g))
    g.output(linear(g, h, "a", E, 4), "B", "S", 4)
    g.output(g("ReduceMax", h, axes=[-1], keepdims=0), "B", "S")
    g.output(g("ReduceSum", g("Mul", h, h), keepdims=0))
    return finish(g, h)


def initializers_as_inputs() -> onnx.ModelProto:
    """IR version 3: every initializer is an input with a default."""
    model = mlp_of("initializers_as_inputs")
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def mlp_of(name: str) -> onnx.ModelProto:
    g = Builder(name)
    return finish(g, ffn(g, stem(g)))


def constant_nodes() -> onnx.ModelProto:
    """Weights and sizes as Constant nodes, no initializers at all."""
    model = mlp_of("constant_nodes")
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in reversed(tensors):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    return model


def local_function() -> onnx.ModelProto:
    """The FFN is a function of the model, called twice with different weights."""
    g = Builder("local_function")
    g.domains["local"] = 1
    body = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    imports = [helper.make_opsetid("", g.opset)]
    g.functions.append(helper.make_function("local", "Ffn", ["x", "w", "v"], ["y"], body, imports))
    h = stem(g)
    for layer, width in (("0", 14), ("1", 16)):
        h = g("Ffn", h, g.weight(f"up{layer}", E, width), g.weight(f"down{layer}", width, E), domain="local")
    return finish(g, h)


def _value(name: str, *dims: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def if_captures() -> onnx.ModelProto:
    """Both branches of If read a value of the graph; what they read stays whole, another FFN does not."""
    g = Builder("if_captures")
    h = stem(g)
    up = g("Relu", linear(g, h, "up", E, F))
    branches = [
        helper.make_graph([helper.make_node(op, [up], [f"{op}_out"])], op, [], [_value(f"{op}_out", "B", "S", F)])
        for op in ("Neg", "Tanh")
    ]
    positive = g("Greater", g("ReduceSum", h, keepdims=0), 0.0)
    y = g("If", positive, then_branch=branches[0], else_branch=branches[1])
    h = g("Add", h, linear(g, y, "down", F, E))
    return finish(g, ffn(g, h, "2", 16))


def loop_captures() -> onnx.ModelProto:
    """A Loop's body multiplies its state by a weight of the graph; an FFN beside it is free."""
    g = Builder("loop_captures")
    h = stem(g)
    g.weight("w_loop", E, E)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["state", "w_loop"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            _value("state", "B", "S", E),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), _value("next", "B", "S", E)],
    )
    h = ffn(g, h, "1")
    looped = g("Loop", np.array(2), np.array(True), h, body=body)
    return finish(g, ffn(g, looped, "2", 16))


def unknown_op() -> onnx.ModelProto:
    """An op without a rule pins what it touches and nothing else."""
    g = Builder("unknown_op")
    g.domains["com.microsoft"] = 1
    h = linear(g, g.input("x", "B", 7), "in", 7, E)
    distance = g("CDist", linear(g, h, "points", E, 9), g.weight("centres", 6, 9), domain="com.microsoft")
    h = ffn(g, g("Add", h, linear(g, distance, "back", 6, E)))
    g.output(linear(g, h, "out", E, 5), "B", 5)
    return g.model()


def padded_and_tiled() -> onnx.ModelProto:
    """Channels padded with zeros for a residual of another width, tiled, sliced apart again."""
    g = Builder("padded_and_tiled")
    h = linear(g, g.input("x", "B", 7), "in", 7, 6)
    wide = g("Pad", g("Relu", h), [0, 2, 0, 2])
    both = g("Concat", wide, g("Tile", h, [1, 2]), axis=1)
    left, right = (g("Slice", both, [a], [b], [1]) for a, b in ((0, 8), (8, 22)))
    y = g("Add", linear(g, left, "a", 8, 9), linear(g, right, "b", 14, 9))
    g.output(linear(g, g("Relu", y), "out", 9, 5), "B", 5)
    return g.model()


def pooled() -> onnx.ModelProto:
    """Masked mean pooling and a pooler: a width that leads away from the stream."""
    g = Builder("pooled")
    h = ffn(g, stem(g))
    mask = g("Unsqueeze", g("Cast", g("Greater", g("ReduceSum", "x", [-1], keepdims=0), 0.0), to=1), [-1])
    total = g("ReduceSum", g("Mul", h, mask), [1], keepdims=0)
    mean = g("Div", total, g("Max", g("ReduceSum", mask, [1], keepdims=0), 1.0))
    y = g("Tanh", linear(g, mean, "pool", E, 11))
    g.output(linear(g, y, "out", 11, 5), "B", 5)
    return g.model()


def lists_of_weights() -> onnx.ModelProto:
    """Weights that are computed: a sum of two tables, a transposed and a concatenated weight."""
    g = Builder("lists_of_weights")
    h = stem(g)
    up = g("Add", g.weight("up_a", E, F), g.weight("up_b", E, F))
    down = g("Transpose", g("Concat", g.weight("down_a", 4, F), g.weight("down_b", 6, F), axis=0), perm=[1, 0])
    return finish(g, g("Add", h, g("MatMul", g("Relu", g("MatMul", h, up)), down)))


def bias_of_shape() -> onnx.ModelProto:
    """A zero tensor made by ConstantOfShape from a Shape, and a Where against it."""
    g = Builder("bias_of_shape")
    h = stem(g)
    up = linear(g, h, "up", E, F)
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    zeros = g("ConstantOfShape", g("Shape", up), value=zero)
    kept = g("Where", g("Greater", up, zeros), up, g("Mul", up, 0.1))
    return finish(g, g("Add", h, linear(g, kept, "down", F, E)))


MISC: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(packed_gate_up, interleaved_gate_up, layer_norm_decomposed, rms_norm_decomposed, tied_embeddings, positions),
    *(shared_zero_bias, output_in_the_middle, several_outputs, initializers_as_inputs, constant_nodes, local_function),
    *(if_captures, loop_captures, unknown_op, padded_and_tiled, pooled, lists_of_weights, bias_of_shape),
)
