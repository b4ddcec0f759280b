"""Small models with the rarer ops of ai.onnx: recurrent layers, images read by position, slots picked by the data.

Everywhere 10 is the hidden size, 7 the input and 5 the output width, 14 the FFN, 6 the units of a recurrent layer.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.builder import Builder, conv, linear
from tests.graphs.fused import finish, stem

E, F, U = 10, 14, 6


def _recurrent(op: str, gates: int, *, directions: int = 1, **attributes: object) -> onnx.ModelProto:
    g = Builder(op.lower())
    h = stem(g)
    x = g("Transpose", h, perm=[1, 0, 2])
    weights = [g.weight("w", directions, gates * U, E), g.weight("r", directions, gates * U, U)]
    weights.append(g.weight("b", directions, 2 * gates * U, scale=0.5))
    direction = "bidirectional" if directions == 2 else "forward"
    y = g(op, x, *weights, hidden_size=U, direction=direction, **attributes)
    merged = g("Reshape", g("Transpose", y, perm=[2, 0, 1, 3]), [0, 0, directions * U])
    return finish(g, g("Add", h, linear(g, merged, "o", directions * U, E)))


def lstm() -> onnx.ModelProto:
    """Both directions, stacked before the next layer."""
    return _recurrent("LSTM", 4, directions=2)


def gru() -> onnx.ModelProto:
    """The reset gate after the product."""
    return _recurrent("GRU", 3, linear_before_reset=1)


def rnn() -> onnx.ModelProto:
    """One gate."""
    return _recurrent("RNN", 1)


def lstm_states() -> onnx.ModelProto:
    """First states and peepholes as weights, last states read."""
    g = Builder("lstm_states")
    h = linear(g, g.input("x", 9, 3, 7), "in", 7, E)
    weights = [g.weight("w", 1, 4 * U, E), g.weight("r", 1, 4 * U, U), g.weight("b", 1, 8 * U, scale=0.5)]
    states = [g.weight(name, 1, 3, U, scale=1.0) for name in ("first_h", "first_c")]
    operands = (*weights, None, *states, g.weight("p", 1, 3 * U, scale=0.5))
    y, last, cell = g("LSTM", h, *operands, n=3, hidden_size=U)
    both = g("Concat", g("Squeeze", last, [0]), g("Squeeze", cell, [0]), axis=1)
    both = g("Concat", both, g("ReduceMean", g("Squeeze", y, [1]), axes=[0], keepdims=0), axis=1)
    g.output(linear(g, both, "out", 3 * U, 5), 3, 5)
    return g.model()


def grid_sample() -> onnx.ModelProto:
    """Channels read at positions of their own, then boxes cut out."""
    g = Builder("grid_sample")
    x = conv(g, g.input("x", 2, 3, 8, 8), "in", 3, E)
    y = g("GridSample", x, g("Tanh", g.input("grid", 2, 6, 6, 2)), mode="bilinear")
    boxes = g.const("boxes", [[0, 0, 4, 4], [1, 1, 5, 5], [0, 2, 3, 5]], np.float32)
    y = g("RoiAlign", y, boxes, g.const("which", [0, 1, 1], np.int64), output_height=4, output_width=4)
    g.output(conv(g, g("Relu", y), "out", E, 5), 3, 5, 4, 4)
    return g.model()


def columns() -> onnx.ModelProto:
    """Columns of patches put together to an image, channel by channel."""
    g = Builder("columns", 18)
    h = stem(g)
    y = linear(g, h, "up", E, F * 4)
    y = g("Col2Im", g("Transpose", g("Slice", y, [0], [9], [1]), perm=[0, 2, 1]), [6, 6], [2, 2], strides=[2, 2])
    g.output(conv(g, y, "out", F, 5), "B", 5, 6, 6)
    return g.model()


def picked_rows() -> onnx.ModelProto:
    """Rows picked by the data, a spectrum over time, a triangle."""
    g = Builder("picked_rows")
    x = g.input("x", 4, 9, 7)
    h = linear(g, x, "in", 7, E)
    h = g("Compress", h, g.const("chosen", [1, 0, 1, 1], bool), axis=0)
    y = g("Relu", linear(g, h, "up", E, F))
    spectrum = g("DFT", g("Unsqueeze", y, [3]), axis=1)
    y = g("ReduceSum", spectrum, [3], keepdims=0)
    g.output(linear(g, linear(g, y, "down", F, E), "out", E, 5), 3, 9, 5)
    return g.model()


def max_pool_positions() -> onnx.ModelProto:
    """MaxPool that tells positions, and MaxUnpool that reads them: they count channels, so those stay."""
    g = Builder("max_pool_positions")
    x = conv(g, g.input("x", 2, 3, 8, 8), "in", 3, E)
    y, where = g("MaxPool", x, n=2, kernel_shape=[2, 2], strides=[2, 2])
    y = g("MaxUnpool", y, where, kernel_shape=[2, 2], strides=[2, 2])
    y = conv(g, g("Relu", conv(g, y, "up", E, F)), "down", F, E)
    g.output(conv(g, y, "out", E, 5), 2, 5, 8, 8)
    return g.model()


def causal_conv() -> onnx.ModelProto:
    """A depthwise filter along time."""
    g = Builder("causal_conv", 27)
    h = stem(g)
    x = g("Transpose", linear(g, h, "up", E, F), perm=[0, 2, 1])
    y, _ = g("CausalConvWithState", x, g.weight("w", F, 1, 3), g.weight("b", F, scale=0.5), n=2)
    return finish(g, linear(g, g("Transpose", y, perm=[0, 2, 1]), "down", F, E))


def cache_update() -> onnx.ModelProto:
    """New keys written into a cache by position."""
    g = Builder("cache_update", 24)
    h = stem(g)
    past = g.input("past", "B", 2, 40, 4)
    k = g("Transpose", g("Reshape", linear(g, h, "k", E, 8), [0, 0, 2, 4]), perm=[0, 2, 1, 3])
    present = g("TensorScatter", past, k, g.input("at", "B", dtype=TensorProto.INT64), axis=-2)
    g.output(g("Identity", present), "B", 2, 40, 4)
    return finish(g, g("Relu", linear(g, h, "mid", E, E)))
