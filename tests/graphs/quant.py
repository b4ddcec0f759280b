"""Small quantized models: QuantizeLinear and DequantizeLinear around floats, all in integers, weights in blocks.

Everywhere 10 is the hidden size, 7 the input and 5 the output width, 14 the FFN (64 where blocks are 16 long).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.attention import attend, heads, rotate_half
from tests.graphs.builder import Builder, conv, linear
from tests.graphs.fused import contrib, finish, microsoft, stem

E, F = 10, 14
U8, I8, I32 = np.uint8, np.int8, np.int32


def integers(g: Builder, name: str, *shape: int, dtype: Any = I8) -> str:
    """A weight of small integers."""
    low, high = (-20, 21) if dtype != U8 else (100, 150)
    return g.const(name, g.rng.integers(low, high, shape), dtype)


def scales(g: Builder, name: str, *shape: int, about: float = 0.02) -> str:
    """Scales that all differ."""
    return g.const(name, about * g.rng.uniform(0.7, 1.3, shape), np.float32)


def number(value: float, dtype: Any = np.float32) -> np.ndarray:
    """A constant of one number."""
    return np.asarray(value, dtype)


def dequantized(g: Builder, name: str, shape: tuple[int, ...], axis: int | None) -> str:
    """An int8 weight back in floats, with one scale or with one a slot of `axis`."""
    per = () if axis is None else (shape[axis],)
    operands = (integers(g, f"w_{name}", *shape), scales(g, f"s_{name}", *per), g.const(f"z_{name}", np.zeros(per), I8))
    return g("DequantizeLinear", *operands, axis=axis or 0)


def dequantized_bias(g: Builder, name: str, width: int) -> str:
    """An int32 bias back in floats."""
    operands = (
        integers(g, f"b_{name}", width, dtype=I32),
        scales(g, f"t_{name}", width),
        g.const(f"y_{name}", np.zeros(width), I32),
    )
    return g("DequantizeLinear", *operands, axis=0)


def rounded(g: Builder, x: str, dtype: Any = U8) -> str:
    """An activation quantized and dequantized."""
    scale, zero = number(0.05), number(120 if dtype == U8 else 3, dtype)
    return g("DequantizeLinear", g("QuantizeLinear", x, scale, zero), scale, zero)


def _qdq_linear(g: Builder, x: str, name: str, rows: int, columns: int, axis: int | None = 1) -> str:
    y = g("MatMul", rounded(g, x), dequantized(g, name, (rows, columns), axis))
    return g("Add", y, dequantized_bias(g, name, columns))


def qdq_ffn() -> onnx.ModelProto:
    """One scale a column of every weight, int32 biases."""
    g = Builder("qdq_ffn")
    h = _qdq_linear(g, g.input("x", "B", "S", 7), "in", 7, E)
    y = _qdq_linear(g, g("Relu", _qdq_linear(g, h, "up", E, F)), "down", F, E)
    g.output(_qdq_linear(g, g("Add", h, y), "out", E, 5), "B", "S", 5)
    return g.model()


def qdq_conv() -> onnx.ModelProto:
    """One scale a filter, one for the whole weight, a depthwise one in the middle."""
    g = Builder("qdq_conv")
    x = g.input("x", "B", 3, 8, 8)

    def block(x: str, name: str, shape: tuple[int, ...], axis: int | None, group: int = 1) -> str:
        operands = (rounded(g, x, I8), dequantized(g, name, shape, axis), dequantized_bias(g, name, shape[0]))
        return g("Conv", *operands, group=group, pads=[1] * 4, kernel_shape=[3, 3])

    h = g("Relu", block(x, "in", (E, 3, 3, 3), 0))
    y = g("Relu", block(h, "up", (F, E, 3, 3), None))
    y = g("Relu", block(y, "deep", (F, 1, 3, 3), 0, group=F))
    h = g("Add", h, block(y, "down", (E, F, 3, 3), 0))
    g.output(conv(g, h, "out", E, 5), "B", 5, 8, 8)
    return g.model()


def qdq_blocks() -> onnx.ModelProto:
    """An int4 weight with a scale for every 16 rows."""
    g = Builder("qdq_blocks", 21)
    h = stem(g)
    up = g("Relu", linear(g, h, "up", E, 64))
    w = g.const("w_down", g.rng.integers(-8, 8, (64, E)), ml_dtypes.int4)
    w = g("DequantizeLinear", w, scales(g, "s_down", 4, E), axis=0, block_size=16)
    return finish(g, g("Add", h, g("MatMul", up, w)))


def _dynamic_linear(g: Builder, x: str, name: str, rows: int, columns: int, *, per_column: bool) -> str:
    a, a_scale, a_zero = g("DynamicQuantizeLinear", x, n=3)
    per = (columns,) if per_column else ()
    b_scale, b_zero = scales(g, f"s_{name}", *per), g.const(f"z_{name}", g.rng.integers(-3, 4, per), I8)
    y = g("MatMulInteger", a, integers(g, f"w_{name}", rows, columns), a_zero, b_zero)
    y = g("Mul", g("Cast", y, to=TensorProto.FLOAT), g("Mul", a_scale, b_scale))
    return g("Add", y, g.weight(f"b_{name}", columns, scale=0.5))


def dynamic() -> onnx.ModelProto:
    """What `quantize_dynamic` writes."""
    g = Builder("dynamic")
    h = _dynamic_linear(g, g.input("x", "B", "S", 7), "in", 7, E, per_column=False)
    y = _dynamic_linear(
        g, g("Relu", _dynamic_linear(g, h, "up", E, F, per_column=True)), "down", F, E, per_column=False
    )
    g.output(_dynamic_linear(g, g("Add", h, y), "out", E, 5, per_column=True), "B", "S", 5)
    return g.model()


def dynamic_fused() -> onnx.ModelProto:
    """What ONNX Runtime makes of it: DynamicQuantizeMatMul, then MatMulIntegerToFloat."""
    g = contrib("dynamic_fused")
    h = stem(g)
    operands = (integers(g, "w_up", E, F), scales(g, "s_up", F), g.const("z_up", g.rng.integers(-3, 4, F), I8))
    y = g("Relu", microsoft(g, "DynamicQuantizeMatMul", h, *operands, g.weight("b_up", F, scale=0.5)))
    a, a_scale, a_zero = g("DynamicQuantizeLinear", y, n=3)
    operands = (integers(g, "w_down", F, E), a_scale, scales(g, "s_down", E), a_zero, g.const("z_down", np.ones(E), I8))
    y = microsoft(g, "MatMulIntegerToFloat", a, *operands, g.weight("b_down", E, scale=0.5))
    return finish(g, g("Add", h, y))


def dynamic_conv() -> onnx.ModelProto:
    """ConvInteger on what DynamicQuantizeLinear makes."""
    g = Builder("dynamic_conv")
    h = conv(g, g.input("x", "B", 3, 8, 8), "in", 3, E)
    a, a_scale, a_zero = g("DynamicQuantizeLinear", g("Relu", h), n=3)
    y = g("ConvInteger", a, integers(g, "w_up", F, E, 3, 3), a_zero, number(2, I8), pads=[1] * 4, kernel_shape=[3, 3])
    y = g("Mul", g("Cast", y, to=TensorProto.FLOAT), g("Mul", a_scale, number(0.02)))
    h = g("Add", h, conv(g, g("Relu", y), "down", F, E))
    g.output(conv(g, h, "out", E, 5), "B", 5, 8, 8)
    return g.model()


SCALE, ZERO = number(0.05), number(120, U8)


def _qlinear(g: Builder, x: str, name: str, rows: int, columns: int) -> str:
    operands = (x, SCALE, ZERO, integers(g, f"w_{name}", rows, columns), scales(g, f"s_{name}", columns))
    return g("QLinearMatMul", *operands, g.const(f"z_{name}", np.zeros(columns), I8), SCALE, ZERO)


def integer_ffn() -> onnx.ModelProto:
    """QLinearMatMul, QLinearSigmoid, QLinearMul, QLinearAdd, QLinearConcat: no floats in between."""
    g = contrib("integer_ffn")
    h = _qlinear(g, g("QuantizeLinear", g.input("x", "B", "S", 7), SCALE, ZERO), "in", 7, E)
    up = _qlinear(g, h, "up", E, F)
    gate = microsoft(g, "QLinearSigmoid", up, SCALE, ZERO, number(1 / 256), number(0, U8))
    y = microsoft(g, "QLinearMul", up, SCALE, ZERO, gate, number(1 / 256), number(0, U8), SCALE, ZERO)
    y = _qlinear(g, y, "down", F, E)
    h = microsoft(g, "QLinearAdd", h, SCALE, ZERO, y, SCALE, ZERO, SCALE, ZERO)
    both = microsoft(g, "QLinearConcat", SCALE, ZERO, h, SCALE, ZERO, up, SCALE, ZERO, axis=2)
    g.output(g("DequantizeLinear", _qlinear(g, both, "out", E + F, 5), SCALE, ZERO), "B", "S", 5)
    return g.model()


def integer_conv() -> onnx.ModelProto:
    """QLinearConv with int32 biases, QLinearLeakyRelu, QLinearGlobalAveragePool, QGemm."""
    g = contrib("integer_conv")
    x = g("QuantizeLinear", g.input("x", "B", 3, 8, 8), SCALE, ZERO)

    def block(x: str, name: str, inputs: int, outputs: int) -> str:
        weight = (integers(g, f"w_{name}", outputs, inputs, 3, 3), scales(g, f"s_{name}", outputs), number(0, I8))
        bias = integers(g, f"b_{name}", outputs, dtype=I32)
        return g("QLinearConv", x, SCALE, ZERO, *weight, SCALE, ZERO, bias, pads=[1] * 4, kernel_shape=[3, 3])

    h = block(x, "in", 3, E)
    y = microsoft(g, "QLinearLeakyRelu", block(h, "up", E, F), SCALE, ZERO, SCALE, ZERO, alpha=0.1)
    h = microsoft(g, "QLinearAdd", h, SCALE, ZERO, block(y, "down", F, E), SCALE, ZERO, SCALE, ZERO)
    h = microsoft(g, "QLinearGlobalAveragePool", h, SCALE, ZERO, number(0.01), ZERO)
    weight = (integers(g, "w_out", 5, E), scales(g, "s_out", 5), g.const("z_out", np.zeros(5), I8))
    flat = (g("Flatten", h), number(0.01), ZERO)
    y = microsoft(g, "QGemm", *flat, *weight, integers(g, "b_out", 5, dtype=I32), None, None, transB=1)
    g.output(y, "B", 5)
    return g.model()


def integer_attention() -> onnx.ModelProto:
    """QAttention: one int8 weight for Q, K and V, a scale a column."""
    g = contrib("integer_attention")
    h = stem(g)
    a, a_scale, a_zero = g("DynamicQuantizeLinear", h, n=3)
    weight, bias = integers(g, "w_qkv", E, 36), g.weight("b_qkv", 36, scale=0.5)
    zero = g.const("z_qkv", np.zeros(()), I8)
    operands = (a, weight, bias, a_scale, scales(g, "s_qkv", about=0.05), None, a_zero, zero)
    y = microsoft(g, "QAttention", *operands, num_heads=3)
    return finish(g, g("Add", h, linear(g, y, "o", 12, E)))


def _nbits(g: Builder, x: str, name: str, rows: int, columns: int, *, points: bool, flat: bool) -> str:
    blocks = rows // 16
    shape = (columns * blocks,) if flat else (columns, blocks)
    operands = [
        x,
        g.const(f"w_{name}", g.rng.integers(0, 256, (columns, blocks, 8)), U8),
        scales(g, f"s_{name}", *shape, about=0.1),
    ]
    packed = (columns * ((blocks + 1) // 2),) if flat else (columns, (blocks + 1) // 2)
    operands += [g.const(f"z_{name}", g.rng.integers(0, 256, packed), U8)] if points else []
    return microsoft(g, "MatMulNBits", *operands, K=rows, N=columns, bits=4, block_size=16)


def _four_bits(name: str, *, points: bool, flat: bool, rows: int = 64) -> onnx.ModelProto:
    g = contrib(name)
    h = stem(g)
    y = g("Relu", linear(g, h, "up", E, rows))
    y = g("Relu", _nbits(g, y, "mid", rows, 96, points=points, flat=flat))
    y = _nbits(g, y, "down", 96, E, points=False, flat=flat)
    return finish(g, g("Add", h, y))


def four_bits() -> onnx.ModelProto:
    """MatMulNBits in blocks of 16."""
    return _four_bits("four_bits", points=False, flat=False)


def four_bits_points() -> onnx.ModelProto:
    """Two zero points in a byte, so that blocks go in pairs; everything on one axis, as older files have it."""
    return _four_bits("four_bits_points", points=True, flat=True)


def four_bits_odd() -> onnx.ModelProto:
    """Zero points of three blocks in two bytes: all rows of that weight stay, its columns may go."""
    return _four_bits("four_bits_odd", points=True, flat=False, rows=48)


def four_bits_odd_flat() -> onnx.ModelProto:
    """The same on one axis."""
    return _four_bits("four_bits_odd_flat", points=True, flat=True, rows=48)


def four_bit_table() -> onnx.ModelProto:
    """GatherBlockQuantized: a table of 64 columns in blocks of 16, then MatMulNBits."""
    g = contrib("four_bit_table")
    ids = g.input("ids", "B", "S", dtype=TensorProto.INT64)
    table = g.const("table", g.rng.integers(0, 256, (20, 32)), U8)
    attributes = {"block_size": 16, "quantize_axis": 1, "gather_axis": 0, "bits": 4}
    h = microsoft(g, "GatherBlockQuantized", table, ids, scales(g, "s_table", 20, 4, about=0.3), **attributes)
    y = _nbits(g, h, "up", 64, F, points=False, flat=False)
    h = g("Add", h, linear(g, g("Relu", y), "down", F, 64))
    g.output(linear(g, h, "out", 64, 5), "B", "S", 5)
    return g.model()


def integer_image() -> onnx.ModelProto:
    """Channels last: QLinearConv, QLinearAveragePool, QLinearGlobalAveragePool; a softmax over what is left."""
    g = contrib("integer_image")
    x = g("QuantizeLinear", g.input("x", "B", 8, 8, 3), SCALE, ZERO)

    def block(x: str, name: str, inputs: int, outputs: int, group: int = 1) -> str:
        weight = (
            integers(g, f"w_{name}", outputs, inputs // group, 3, 3),
            scales(g, f"s_{name}", outputs),
            number(0, I8),
        )
        attributes = {"pads": [1] * 4, "kernel_shape": [3, 3], "channels_last": 1, "group": group}
        return microsoft(g, "QLinearConv", x, SCALE, ZERO, *weight, SCALE, ZERO, **attributes)

    h = block(x, "in", 3, E)
    y = block(block(h, "up", E, F), "deep", F, F, group=F)
    h = microsoft(g, "QLinearAdd", h, SCALE, ZERO, block(y, "down", F, E), SCALE, ZERO, SCALE, ZERO)
    pooled = {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": 1}
    h = microsoft(g, "QLinearAveragePool", h, SCALE, ZERO, SCALE, ZERO, **pooled)
    h = microsoft(g, "QLinearGlobalAveragePool", h, SCALE, ZERO, SCALE, ZERO, channels_last=1)
    y = _qlinear(g, g("Reshape", h, [0, E]), "out", E, 5)
    y = microsoft(g, "QLinearSoftmax", y, SCALE, ZERO, number(1 / 256), number(0, U8), axis=1, opset=13)
    g.output(g("DequantizeLinear", y, number(1 / 256), number(0, U8)), "B", 5)
    return g.model()


def integer_where() -> onnx.ModelProto:
    """QLinearWhere of two branches."""
    g = contrib("integer_where")
    h = _qlinear(g, g("QuantizeLinear", g.input("x", "B", 9, 7), SCALE, ZERO), "in", 7, E)
    branches = (_qlinear(g, h, "a", E, F), SCALE, ZERO, _qlinear(g, h, "b", E, F), SCALE, ZERO)
    y = microsoft(g, "QLinearWhere", g.const("which", np.arange(9).reshape(9, 1) % 2, bool), *branches, SCALE, ZERO)
    g.output(g("DequantizeLinear", _qlinear(g, y, "out", F, 5), SCALE, ZERO), "B", 9, 5)
    return g.model()


def _dynamic_lstm(name: str, *, directions: int, per_row: bool) -> onnx.ModelProto:
    """What `quantize_dynamic` makes of an LSTM: weights `[directions, inputs, gates·units]`."""
    units = 6
    g = contrib(name)
    h = stem(g)
    x = g("Transpose", h, perm=[1, 0, 2])
    per = (directions, 4 * units) if per_row else (directions,)
    parameters: list[str] = []
    for which in "wr":
        points = g.rng.integers(-3, 4, per) if not per_row else np.zeros(per)
        parameters += [scales(g, f"s_{which}", *per, about=0.01), g.const(f"z_{which}", points, I8)]
    weights = [integers(g, "w", directions, E, 4 * units), integers(g, "r", directions, units, 4 * units)]
    bias = g.weight("b", directions, 8 * units, scale=0.5)
    y = microsoft(
        g,
        "DynamicQuantizeLSTM",
        x,
        *weights,
        bias,
        *[None] * 4,
        *parameters,
        hidden_size=units,
        direction="bidirectional" if directions == 2 else "forward",
    )
    merged = g("Reshape", g("Transpose", y, perm=[2, 0, 1, 3]), [0, 0, directions * units])
    return finish(g, g("Add", h, linear(g, merged, "o", directions * units, E)))


def dynamic_lstm() -> onnx.ModelProto:
    """Both directions, one scale and zero point each."""
    return _dynamic_lstm("dynamic_lstm", directions=2, per_row=False)


def dynamic_lstm_rows() -> onnx.ModelProto:
    """A scale a row."""
    return _dynamic_lstm("dynamic_lstm_rows", directions=1, per_row=True)


def qdq_rotary() -> onnx.ModelProto:
    """Two layers of attention with one cos and one sin, computed from positions; words and weights are quantized."""
    g = Builder("qdq_rotary")
    ids = g.input("x", "B", "S", dtype=TensorProto.INT64)
    h = g("Gather", dequantized(g, "words", (20, E), None), ids)
    length = g("Shape", ids, start=1, end=2)
    positions = g("Cast", g("Range", np.int64(0), g("Squeeze", length), np.int64(1)), to=TensorProto.FLOAT)
    angles = g("Mul", g("Unsqueeze", positions, [1]), g.const("inv_freq", np.array([1.0, 0.5]), np.float32))
    cos, sin = (g(op, g("Concat", angles, angles, axis=-1)) for op in ("Cos", "Sin"))
    for layer in "ab":
        q, k, v = (heads(g, _qdq_linear(g, h, f"{part}_{layer}", E, 8), 2, 4) for part in "qkv")
        q, k = (rotate_half(g, each, 4, cos, sin) for each in (q, k))
        merged = g("Reshape", attend(g, q, k, v, 4), [0, 0, 8])
        h = g("Add", h, _qdq_linear(g, merged, f"o_{layer}", 8, E))
    g.output(_qdq_linear(g, h, "out", E, 5), "B", "S", 5)
    return g.model()
