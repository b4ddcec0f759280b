"""Random models for `benchmarks.soundness`: stacks of layers as networks have them, and graphs of ops at will.

In each of them zeroing what is missing from a pruned file equals removing it, so that an oracle needs no analysis: no
number of a weight occurs twice, and nothing sums up what a removed unit would still be with its weights zeroed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.graphs.builder import Builder
from tests.graphs.random import OPS, Writer, begin, finish


@dataclass
class RandomModel:
    """A model, its inputs, and which of its initializers are weights.

    Attributes:
        proto: The model.
        inputs: Name -> shape, 0 where it is dynamic.
        weights: Initializers that hold weights.
        scales: By weight of bytes the initializer with one number a column of it.
    """

    proto: onnx.ModelProto
    inputs: dict[str, tuple[int, ...]]
    weights: set[str]
    scales: dict[str, str] = field(default_factory=dict)


# ---- networks --------------------------------------------------------------------------------------------------------


class Network:
    """Writes a network of random layers over tokens or over images."""

    def __init__(self, seed: int, *, int8: bool = False) -> None:
        self.rng = np.random.default_rng([seed, 7])
        self.g = Builder(f"network_{seed}_{int8}", opset=18)
        self.weights: set[str] = set()
        self.scales: dict[str, str] = {}
        self.int8 = int8

    def choice(self, *options: int) -> int:
        """One of some numbers."""
        return int(self.rng.choice(options))

    def chance(self, share: float) -> bool:
        """True in a share of all cases."""
        return bool(self.rng.random() < share)

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A weight, no number of which occurs elsewhere."""
        name = self.g.weight(f"w{len(self.weights)}", *shape, scale=scale)
        self.weights.add(name)
        return name

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def linear(self, x: str, rows: int, columns: int, bias: bool | None = None) -> str:
        """A projection, with a bias or without."""
        g = self.g
        if self.int8:
            y = self._linear_of_bytes(x, rows, columns)
        else:
            y = g("MatMul", x, self.weight(rows, columns))
        biased = self.chance(0.7) if bias is None else bias
        return str(g("Add", y, self.weight(columns, scale=0.5)) if biased else y)

    def _linear_of_bytes(self, x: str, rows: int, columns: int) -> str:
        """Weights of bytes, one scale a column; activations quantized as they come, or not at all."""
        g = self.g
        name = f"w{len(self.weights)}"
        numbers = np.arange(-127, 128)  # none twice in a column, so that any column tells which rows are left
        g.const(name, np.stack([self.rng.permutation(numbers)[:rows] for _ in range(columns)], axis=1), np.int8)
        self.weights.add(name)
        scale = self.weight(columns, scale=1.0)
        g.initializers[scale] = (0.01 + 0.02 * np.abs(g.initializers[scale]) / np.sqrt(rows)).astype(np.float32)
        self.scales[name] = scale
        zero = g.const(f"{name}_zero", np.zeros(columns), np.int8)
        if self.chance(0.5):
            return str(g("MatMul", x, g("DequantizeLinear", name, scale, zero, axis=1)))
        q, step, point = g("DynamicQuantizeLinear", x, n=3)
        product = g("Cast", g("MatMulInteger", q, name, point), to=onnx.TensorProto.FLOAT)
        return str(g("Mul", product, g("Mul", step, scale)))

    def activation(self, x: str) -> str:
        """One of the usual functions, all of which are zero at zero."""
        g = self.g
        match self.choice(0, 1, 2, 3):
            case 0:
                return str(g("Relu", x))
            case 1:
                return str(g("Tanh", x))
            case 2:
                return str(g("Mul", x, g("Sigmoid", x)))
        return str(g("Mul", x, g("Add", g("Erf", g("Div", x, 1.4142135)), 1.0)))

    def heads(self, x: str, heads: int, dim: int) -> str:
        """An axis taken apart into heads, which go first."""
        g = self.g
        return str(g("Transpose", g("Reshape", x, [0, 0, heads, dim]), perm=[0, 2, 1, 3]))

    def attention(self, x: str, width: int) -> str:
        """Attention: projections apart, joined or packed; keys for every head or shared."""
        g = self.g
        shared = self.choice(1, 1, 2, 3)
        keys, dim, v_dim = self.choice(2, 3, 4), self.choice(2, 4, 6), self.choice(2, 3, 5)
        heads = keys * shared
        if shared == 1 and not self.int8 and self.chance(0.4):
            sizes = [heads * dim, heads * dim, heads * v_dim]
            q, k, v = g("Split", self.linear(x, width, sum(sizes)), sizes, axis=-1, n=3)
        elif shared == 1 and not self.int8 and self.chance(0.4):
            v_dim = dim
            packed = g("Reshape", self.linear(x, width, 3 * heads * dim), [0, 0, 3, heads * dim])
            q, k, v = (g("Gather", packed, np.array(part), axis=2) for part in range(3))
        else:
            q = self.linear(x, width, heads * dim)
            k, v = self.linear(x, width, keys * dim), self.linear(x, width, keys * v_dim)
        q, k, v = self.heads(q, heads, dim), self.heads(k, keys, dim), self.heads(v, keys, v_dim)
        if shared > 1:
            k, v = (self.repeat(each, keys, shared, n) for each, n in ((k, dim), (v, v_dim)))
        scores = g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), float(dim**-0.5))
        mixed = g("MatMul", g("Softmax", scores, axis=-1), v)
        joined = g("Reshape", g("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, heads * v_dim])
        return self.linear(str(joined), heads * v_dim, width)

    def repeat(self, x: str, keys: int, times: int, dim: int) -> str:
        """Keys or values once for every query head that shares them."""
        g = self.g
        wide = g("Expand", g("Unsqueeze", x, [2]), [1, 1, times, 1, 1])
        return str(g("Reshape", wide, [0, keys * times, -1, dim]))

    def mlp(self, x: str, width: int) -> str:
        """Two or three projections with an activation between."""
        g, inner = self.g, self.choice(6, 8, 12, 15)
        match self.choice(0, 1, 2):
            case 0:
                h = self.activation(self.linear(x, width, inner))
            case 1:
                h = g("Mul", self.activation(self.linear(x, width, inner)), self.linear(x, width, inner))
            case _:
                gate, up = g("Split", self.linear(x, width, 2 * inner), [inner, inner], axis=-1, n=2)
                h = g("Mul", self.activation(gate), up)
        return self.linear(str(h), inner, width)

    def branches(self, x: str, width: int) -> str:
        """Several widths joined, one of them cut out again."""
        g, a, b = self.g, self.choice(4, 6), self.choice(3, 8)
        left, right = self.activation(self.linear(x, width, a)), self.activation(self.linear(x, width, b))
        joined = g("Concat", left, right, left, axis=-1)
        part = g("Slice", joined, [1], [a + b], [2]) if self.chance(0.5) else joined
        return self.linear(str(part), a + b - 1 if part != joined else 2 * a + b, width)

    def norm(self, x: str, width: int) -> str:
        """A layer norm."""
        scale, offset = self.weight(width, scale=1.0), self.weight(width, scale=0.5)
        return str(self.g("LayerNormalization", x, scale, offset, axis=-1))

    def over_tokens(self) -> RandomModel:
        """A network over a sequence."""
        g, width = self.g, self.choice(8, 9, 12)
        x = self.linear(g.input("x", "B", "T", 6), 6, width)
        normed = self.chance(0.3)
        for _ in range(self.choice(1, 2, 3)):
            layer = [self.attention, self.mlp, self.branches][self.choice(0, 0, 1, 1, 2)]
            y = layer(self.norm(x, width) if normed else x, width)
            x = str(g("Add", x, y)) if self.chance(0.7) else y
        g.output(self.linear(x, width, 5, bias=True), "B", "T", 5)
        if self.chance(0.3):
            g.output(self.linear(str(g("ReduceMean", x, [1], keepdims=0)), width, 4), "B", 4)
        return RandomModel(g.model(), {"x": (0, 0, 6)}, self.weights, self.scales)

    # ---- images ----------------------------------------------------------------------------------------------------

    def conv(self, x: str, inputs: int, outputs: int, k: int = 3, group: int = 1, stride: int = 1) -> str:
        """A convolution, with a bias and a batch norm or without."""
        g = self.g
        bias = [self.weight(outputs, scale=0.5)] if self.chance(0.6) else []
        w = self.weight(outputs, inputs // group, k, k)
        y = g("Conv", x, w, *bias, group=group, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride, stride])
        if self.chance(0.4):
            scale, offset, mean, spread = (self.weight(outputs, scale=0.5) for _ in range(4))
            g.initializers[spread] = (np.abs(g.initializers[spread]) + 0.5).astype(np.float32)
            y = g("BatchNormalization", y, scale, offset, mean, spread)
        return str(y)

    def image_layer(self, x: str, width: int) -> str:
        """Plain, depthwise, grouped, split and joined, squeezed and excited, or shuffled."""
        g, inner = self.g, self.choice(6, 8, 12)
        match self.choice(0, 1, 2, 3, 4, 5):
            case 0:
                return self.conv(self.activation(self.conv(x, width, inner)), inner, width)
            case 1:
                h = self.activation(self.conv(x, width, inner, 1))
                return self.conv(self.activation(self.conv(h, inner, inner, group=inner)), inner, width, 1)
            case 2:
                h = self.activation(self.conv(x, width, inner))
                return self.conv(self.activation(self.conv(h, inner, inner, group=2)), inner, width, 1)
            case 3:
                half = inner // 2
                a, b = g("Split", self.activation(self.conv(x, width, inner, 1)), [half, half], axis=1, n=2)
                c = self.activation(self.conv(b, half, half))
                return self.conv(str(g("Concat", a, b, c, axis=1)), 3 * half, width, 1)
            case 4:
                h = self.activation(self.conv(x, width, inner))
                squeezed = self.activation(self.conv(str(g("GlobalAveragePool", h)), inner, 4, 1))
                return self.conv(str(g("Mul", h, g("Sigmoid", self.conv(squeezed, 4, inner, 1)))), inner, width, 1)
        h = self.conv(x, width, inner, 1, group=2 if width % 2 == 0 else 1)
        wide = g("Reshape", h, [0, 2, inner // 2, -1])
        mixed = g("Reshape", g("Transpose", wide, perm=[0, 2, 1, 3]), [0, inner, 10, 10])
        return self.conv(str(mixed), inner, width, group=2 if width % 2 == 0 else 1)

    def over_images(self) -> RandomModel:
        """A network over images."""
        g, width = self.g, self.choice(6, 8, 9)
        x = self.activation(self.conv(g.input("x", "B", 3, 10, 10), 3, width))
        for _ in range(self.choice(1, 2, 3)):
            y = self.image_layer(x, width)
            x = self.activation(str(g("Add", x, y)) if self.chance(0.6) else y)
        if self.chance(0.5):
            flat = g("Flatten", g("MaxPool", x, kernel_shape=[5, 5], strides=[5, 5]))
            y = g("Gemm", flat, self.weight(5, 4 * width), self.weight(5, scale=0.5), transB=1)
            g.output(y, "B", 5)
        else:
            g.output(self.conv(x, width, 4, 1), "B", 4, 10, 10)
        return RandomModel(g.model(), {"x": (0, 3, 10, 10)}, self.weights, self.scales)


# ---- ops at will -----------------------------------------------------------------------------------------------------


class Restrained(Writer):
    """The generator of the tests, sums over nothing that is not zero where its weights are."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.shifted: set[str] = set()

    def careful(self, write: Callable[[Writer], None]) -> None:
        """Write one op; what it makes is remembered if it may be other than zero where weights are zeroed."""
        before, values = len(self.g.nodes), len(self.values)
        if write in (Writer.reduce, Writer.contract, Writer.broadcast):
            everything, self.values = self.values, [v for v in self.values if v[0] not in self.shifted]
            if self.values:
                count = len(self.values)
                write(self)
                everything = [*everything, *self.values[count:]]
            self.values = everything
        else:
            write(self)
        for node in self.g.nodes[before:]:
            shifts = node.op_type in SHIFTING or any(name in self.shifted for name in node.input)
            rank = next((len(shape) for name, shape in self.values[values:] if name in node.output), 1)
            if shifts or (node.op_type == "Add" and (rank > 1 or write is Writer.broadcast)):
                self.shifted.update(node.output)


SHIFTING = {"Sigmoid", "Cos", "Softplus", "Softmax", "LayerNormalization"}
"""Ops that make something of nothing."""

UNTOLD = {"ReduceMax", "ReduceMin", "Max"}
"""Ops under which a zero is not nothing: a graph with one of them is left out."""


def at_will(seed: int) -> RandomModel:
    """A graph of ops put together at will, the first one of which zeroing tells something."""
    return next(model for k in range(1000) if (model := _drawn(seed + k * 10**6)) is not None)


def _drawn(seed: int) -> RandomModel | None:
    writer = Restrained(seed)
    begin(writer)
    for _ in range(int(writer.rng.integers(8, 22))):
        writer.careful(OPS[writer.rng.integers(len(OPS))])
    if any(node.op_type in UNTOLD for node in writer.g.nodes):
        return None
    proto = finish(writer)
    weights = {name for name, array in writer.g.initializers.items() if array.dtype == np.float32}
    return RandomModel(proto, {"x": (0, 7)}, weights)
