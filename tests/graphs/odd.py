"""Small graphs of what is rare and easily got wrong: an axis twice in a tensor, statistics of weights, odd outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graphs.attention import E, finish, mha, stem
from tests.graphs.builder import Builder, conv, linear
from tests.graphs.misc import F, ffn
from tests.graphs.vision import classify, image


def gram() -> onnx.ModelProto:
    """Bilinear pooling: the channels stand twice in one tensor, and once more as their own square in a weight."""
    g = Builder("gram")
    flat = g("Reshape", image(g, 6), [0, 6, 64])
    square = g("Mul", g("MatMul", flat, g("Transpose", flat, perm=[0, 2, 1])), 0.05)
    g.output(linear(g, g("Reshape", square, [0, 36]), "fc", 36, 5), "B", 5)
    return g.model()


def outer_product() -> onnx.ModelProto:
    """Two widths multiplied out and flattened."""
    g = Builder("outer_product")
    x = g.input("x", "B", 7)
    a, b = (linear(g, x, name, 7, width) for name, width in (("a", 6), ("b", 4)))
    product = g("Mul", g("Unsqueeze", a, [2]), g("Unsqueeze", b, [1]))
    g.output(linear(g, g("Flatten", product), "fc", 24, 5), "B", 5)
    return g.model()


def few_positions() -> onnx.ModelProto:
    """A table of sixteen positions, as queries for objects have: no longer sequence runs."""
    g = Builder("few_positions")
    h = stem(g)
    length = g("Shape", "x", start=1, end=2)
    return finish(g, ffn(g, g("Add", h, g("Slice", g.weight("positions", 16, E), [0], length, [0]))))


def traced_for_one_block() -> onnx.ModelProto:
    """Padded to one block of 64, however long the sequence: a longer one does not fit into the Reshape any more."""
    g = Builder("traced_for_one_block")
    h = stem(g)
    batch, length = (g("Shape", "x", start=k, end=k + 1) for k in (0, 1))
    missing = g("Sub", np.array([64]), length)
    block = g("Pad", h, g("Concat", np.array([0, 0, 0, 0]), missing, np.array([0]), axis=0))
    inner = g("Slice", g("Relu", linear(g, block, "up", E, F)), [0], length, [1])
    inner = g("Reshape", inner, g("Concat", batch, length, np.array([F]), axis=0))
    return finish(g, g("Add", h, linear(g, inner, "down", F, E)))


def overlapping_slices() -> onnx.ModelProto:
    """Two slices that overlap, each with a weight of its own."""
    g = Builder("overlapping_slices")
    h = g("Relu", linear(g, g.input("x", "B", 7), "in", 7, 12))
    left, right = (g("Slice", h, [a], [b], [1]) for a, b in ((0, 8), (5, 12)))
    g.output(g("Add", linear(g, left, "a", 8, 5), linear(g, right, "b", 7, 5)), "B", 5)
    return g.model()


def shifted_sum() -> onnx.ModelProto:
    """Channels are added to their neighbours four further: slots fall into four classes."""
    g = Builder("shifted_sum")
    h = g("Relu", linear(g, g.input("x", "B", 7), "in", 7, 12))
    left, right = (g("Slice", h, [a], [b], [1]) for a, b in ((0, 8), (4, 12)))
    g.output(linear(g, g("Add", left, right), "fc", 8, 5), "B", 5)
    return g.model()


def rolled() -> onnx.ModelProto:
    """Channels rolled by four of twelve and added to themselves."""
    g = Builder("rolled")
    h = g("Relu", linear(g, g.input("x", "B", 7), "in", 7, 12))
    tail, head = (g("Slice", h, [a], [b], [1]) for a, b in ((4, 12), (0, 4)))
    g.output(linear(g, g("Add", h, g("Concat", tail, head, axis=1)), "fc", 12, 5), "B", 5)
    return g.model()


def sequences() -> onnx.ModelProto:
    """SplitToSequence and SequenceAt: values that are no tensors."""
    g = Builder("sequences")
    h = stem(g)
    wide = linear(g, h, "wide", E, 12)
    parts = g("SplitToSequence", wide, np.array(6), axis=-1)
    y = g("Add", *(g("SequenceAt", parts, np.array(k)) for k in range(2)))
    return finish(g, ffn(g, g("Add", h, linear(g, y, "narrow", 6, E))))


def weight_as_output() -> onnx.ModelProto:
    """A weight is a graph output too."""
    g = Builder("weight_as_output")
    model = finish(g, ffn(g, stem(g)))
    model.graph.output.append(helper.make_tensor_value_info("w_up", TensorProto.FLOAT, [E, F]))
    return model


def shape_as_output() -> onnx.ModelProto:
    """The shape of an inner value is an output, and goes on telling the old lengths."""
    g = Builder("shape_as_output")
    h = stem(g)
    up = g("Relu", linear(g, h, "up", E, F))
    g.output(g("Shape", up), 3, dtype=TensorProto.INT64)
    return finish(g, g("Add", h, linear(g, up, "down", F, E)))


def expanded_bias() -> onnx.ModelProto:
    """A bias expanded to the shape of what it is added to."""
    g = Builder("expanded_bias")
    h = stem(g)
    up = g("MatMul", h, g.weight("w_up", E, F))
    up = g("Add", up, g("Expand", g.weight("b_up", 1, F), g("Shape", up)))
    return finish(g, g("Add", h, linear(g, g("Relu", up), "down", F, E)))


def einsum_of_three() -> onnx.ModelProto:
    """A low-rank weight in one Einsum."""
    g = Builder("einsum_of_three")
    h = stem(g)
    low = g("Einsum", h, g.weight("w_a", E, 6), g.weight("w_b", 6, F), equation="bse,er,rf->bsf")
    return finish(g, g("Add", h, linear(g, g("Relu", low), "down", F, E)))


def low_rank_update() -> onnx.ModelProto:
    """LoRA, its product of two weights computed in the graph."""
    g = Builder("low_rank_update")
    h = stem(g)
    update = g("Mul", g("MatMul", g.weight("lora_a", E, 4), g.weight("lora_b", 4, F)), 0.5)
    up = g("MatMul", h, g("Add", g.weight("w_up", E, F), update))
    return finish(g, g("Add", h, linear(g, g("Relu", up), "down", F, E)))


def block_diagonal() -> onnx.ModelProto:
    """A weight for every block of the hidden width: a batched MatMul with a constant."""
    g = Builder("block_diagonal")
    h = linear(g, stem(g), "up", E, 12)
    blocks = g("Transpose", g("Reshape", h, [0, 0, 3, 4]), perm=[0, 2, 1, 3])
    mixed = g("Relu", g("Add", g("MatMul", blocks, g.weight("w_blocks", 3, 4, 5)), g.weight("b_blocks", 3, 1, 5)))
    merged = g("Reshape", g("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, 15])
    return finish(g, linear(g, merged, "down", 15, E))


def group_norm_one() -> onnx.ModelProto:
    """PoolFormer: one group, statistics over channels and space."""
    g = Builder("group_norm_one")
    h = conv(g, image(g, 10), "a", 10, 12)
    ones, zeros = g.const("ones", np.ones(1), np.float32), g.const("zeros", np.zeros(1), np.float32)
    h = g("Reshape", g("InstanceNormalization", g("Reshape", h, [0, 1, -1]), ones, zeros), g("Shape", h))
    h = g("Mul", h, g.weight("scale", 12, 1, 1, scale=1.0))
    return classify(g, g("Relu", conv(g, h, "b", 12, 9)), 9)


def weight_norm() -> onnx.ModelProto:
    """`g · v / |v|`, computed in the graph: a channel less would change the norm of every filter."""
    g = Builder("weight_norm")
    h = image(g, 10)
    v = g.weight("v", 12, 10, 3, 3)
    w = g("Mul", g("Div", v, g("ReduceL2", v, axes=[1, 2, 3])), g.weight("g", 12, 1, 1, 1, scale=1.0))
    h = g("Relu", g("Conv", h, w, kernel_shape=[3, 3]))
    return classify(g, g("Relu", conv(g, h, "b", 12, 9)), 9)


def standardized_weight() -> onnx.ModelProto:
    """BiT: every filter is centred and scaled by its own statistics."""
    g = Builder("standardized_weight")
    h = image(g, 10)
    v = g.weight("v", 12, 10, 3, 3)
    centred = g("Sub", v, g("ReduceMean", v, axes=[1, 2, 3]))
    deviation = g("Sqrt", g("Add", g("ReduceMean", g("Mul", centred, centred), axes=[1, 2, 3]), 1e-5))
    h = g("Relu", g("Conv", h, g("Mul", g("Div", centred, deviation), 0.1), kernel_shape=[3, 3]))
    return classify(g, g("Relu", conv(g, h, "b", 12, 9)), 9)


def retyped(model: onnx.ModelProto, to: int) -> onnx.ModelProto:
    """The same model in another floating type."""
    kind = helper.tensor_dtype_to_np_dtype(to)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = to
    return model


def double() -> onnx.ModelProto:
    return retyped(mha(), TensorProto.DOUBLE)


def counted() -> onnx.ModelProto:
    """How many neurons fire, summed up in integers."""
    g = Builder("counted")
    h = stem(g)
    up = g("Relu", linear(g, h, "up", E, F))
    fired = g("ReduceSum", g("Cast", g("Greater", up, 0.0), to=TensorProto.INT64), [-1])
    total = g("Mul", g("Cast", fired, to=TensorProto.FLOAT), 0.1)
    return finish(g, g("Add", g("Add", h, total), linear(g, up, "down", F, E)))


def half() -> onnx.ModelProto:
    return retyped(mha(), TensorProto.FLOAT16)


ODD: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(gram, outer_product, few_positions, traced_for_one_block, overlapping_slices, shifted_sum, rolled),
    *(sequences, weight_as_output, shape_as_output, expanded_bias, einsum_of_three, low_rank_update),
    *(block_diagonal, group_norm_one, weight_norm, standardized_weight, counted, double, half),
)
