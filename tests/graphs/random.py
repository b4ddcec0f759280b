"""Random graphs of ops that move, join, split, reduce and contract axes; every one runs, with a dynamic batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.graphs.builder import Builder

Shape = tuple[int, ...]
"""Without the batch, which comes first everywhere."""

LARGEST = 480


class Writer:
    """Writes ops onto a growing pool of values `(name, shape)`."""

    def __init__(self, seed: int) -> None:
        self.g = Builder(f"random_{seed}", opset=18)
        self.rng = np.random.default_rng(seed)
        self.values: list[tuple[str, Shape]] = []

    def pick(self, fits: Callable[[Shape], bool] = lambda shape: True) -> tuple[str, Shape] | None:
        """One of the values that fit, late ones more often."""
        fitting = [value for value in self.values if fits(value[1])]
        return fitting[-1 - min(int(self.rng.geometric(0.4)) - 1, len(fitting) - 1)] if fitting else None

    def axis(self, shape: Shape) -> int:
        return int(self.rng.integers(len(shape)))

    def add(self, name: str, shape: Shape) -> None:
        if 0 < np.prod(shape) <= LARGEST and len(shape) <= 4:
            self.values.append((name, shape))

    def width(self) -> int:
        return int(self.rng.choice([3, 4, 6, 8, 12]))

    # ---- ops: each writes one, if some value fits -----------------------------------------------------------------

    def linear(self) -> None:
        if value := self.pick(lambda shape: len(shape) > 0):
            x, shape = value
            width, k = self.width(), len(self.g.nodes)
            y = self.g("MatMul", x, self.g.weight(f"w{k}", shape[-1], width)) if len(shape) > 1 else self.gemm(x, shape)
            if len(shape) == 1:
                width = 9
            self.add(self.g("Add", y, self.g.weight(f"b{k}", width, scale=0.5)), (*shape[:-1], width))

    def gemm(self, x: str, shape: Shape) -> str:
        return str(self.g("Gemm", x, self.g.weight(f"w{len(self.g.nodes)}", 9, shape[0]), transB=1))

    def factor(self) -> None:
        """An axis as a product."""
        if value := self.pick(lambda shape: any(n in (4, 6, 8, 9, 12, 16, 24) for n in shape)):
            x, shape = value
            axis = next(k for k in self.rng.permutation(len(shape)) if shape[k] in (4, 6, 8, 9, 12, 16, 24))
            outer = int(self.rng.choice([n for n in (2, 3, 4, 6) if shape[axis] % n == 0 and n < shape[axis]]))
            new = (*shape[:axis], outer, shape[axis] // outer, *shape[axis + 1 :])
            self.add(self.g("Reshape", x, [-1, *new]), new)

    def merge(self) -> None:
        if value := self.pick(lambda shape: len(shape) > 1):
            x, shape = value
            axis = int(self.rng.integers(len(shape) - 1))
            new = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
            self.add(self.g("Reshape", x, [0, *new]), new)

    def transpose(self) -> None:
        if value := self.pick(lambda shape: len(shape) > 1):
            x, shape = value
            order = [int(k) for k in self.rng.permutation(len(shape))]
            self.add(self.g("Transpose", x, perm=[0, *(k + 1 for k in order)]), tuple(shape[k] for k in order))

    def concat(self) -> None:
        if value := self.pick():
            x, shape = value
            axis = self.axis(shape)
            beside = (len(shape), shape[:axis] + shape[axis + 1 :])
            other = self.pick(lambda s: (len(s), s[:axis] + s[axis + 1 :]) == beside)
            assert other is not None
            pair = [x, other[0]] if self.rng.random() < 0.5 else [other[0], x]
            new = (*shape[:axis], shape[axis] + other[1][axis], *shape[axis + 1 :])
            self.add(self.g("Concat", *pair, axis=axis + 1), new)

    def split(self) -> None:
        if value := self.pick(lambda shape: any(n > 2 for n in shape)):
            x, shape = value
            axis = next(k for k in self.rng.permutation(len(shape)) if shape[k] > 2)
            cut = int(self.rng.integers(1, shape[axis]))
            if shape[axis] % 2 == 0 and self.rng.random() < 0.6:
                cut = shape[axis] // 2
            sizes = [cut, shape[axis] - cut]
            for name, size in zip(self.g("Split", x, sizes, axis=int(axis) + 1, n=2), sizes, strict=True):
                self.add(name, (*shape[:axis], size, *shape[axis + 1 :]))

    def slice(self) -> None:
        if value := self.pick(lambda shape: any(n > 2 for n in shape)):
            x, shape = value
            axis = next(int(k) for k in self.rng.permutation(len(shape)) if shape[k] > 2)
            start, stop = sorted(int(n) for n in self.rng.choice(shape[axis] + 1, 2, replace=False))
            step = int(self.rng.choice([1, 1, 2]))
            ends = [stop, stop - shape[axis] if stop < shape[axis] else 2**40]
            length = len(range(start, stop, step))
            y = self.g("Slice", x, [start], [ends[int(self.rng.integers(2))]], [axis + 1], [step])
            self.add(y, (*shape[:axis], length, *shape[axis + 1 :]))

    def take(self) -> None:
        if value := self.pick(lambda shape: len(shape) > 1):
            x, shape = value
            axis = self.axis(shape)
            at = int(self.rng.integers(-shape[axis], shape[axis]))
            self.add(self.g("Gather", x, np.array(at), axis=axis + 1), (*shape[:axis], *shape[axis + 1 :]))

    def combine(self) -> None:
        if value := self.pick():
            x, shape = value
            other = self.pick(lambda s: s == shape)
            assert other is not None
            self.add(self.g(str(self.rng.choice(["Add", "Mul", "Sub", "Max"])), x, other[0]), shape)

    def broadcast(self) -> None:
        """Combined with a reduction of itself, or with a constant of some of its axes."""
        if value := self.pick():
            x, shape = value
            axis = self.axis(shape)
            if self.rng.random() < 0.5:
                op = str(self.rng.choice(["ReduceSum", "ReduceMax", "ReduceMean", "ReduceL2"]))
                other = self.g(op, x, [axis + 1], keepdims=1)
            else:
                kept = [n if self.rng.random() < 0.6 else 1 for n in shape]
                other = self.g.weight(f"c{len(self.g.nodes)}", 1, *kept, scale=1.0)
            self.add(self.g("Tanh", self.g(str(self.rng.choice(["Add", "Mul"])), x, other)), shape)

    def unary(self) -> None:
        if value := self.pick():
            self.add(self.g(str(self.rng.choice(["Tanh", "Sigmoid", "Relu", "Cos", "Softplus"])), value[0]), value[1])

    def reduce(self) -> None:
        if value := self.pick(lambda shape: len(shape) > 1):
            x, shape = value
            axis = self.axis(shape)
            op = str(self.rng.choice(["ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1"]))
            self.add(self.g(op, x, [axis + 1], keepdims=0), (*shape[:axis], *shape[axis + 1 :]))

    def softmax(self) -> None:
        if value := self.pick():
            self.add(self.g("Softmax", value[0], axis=self.axis(value[1]) + 1), value[1])

    def norm(self) -> None:
        if value := self.pick(lambda shape: shape[-1] > 3):
            x, shape = value
            k = len(self.g.nodes)
            scale, bias = (self.g.weight(f"{part}{k}", shape[-1], scale=1.0) for part in ("n", "m"))
            self.add(self.g("LayerNormalization", x, scale, bias, axis=-1), shape)

    def tile(self) -> None:
        if value := self.pick():
            x, shape = value
            axis, times = self.axis(shape), int(self.rng.choice([2, 3]))
            if self.rng.random() < 0.5:
                repeats = [1] * (len(shape) + 1)
                repeats[axis + 1] = times
                self.add(self.g("Tile", x, repeats), (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))
            else:
                wide = self.g("Unsqueeze", x, [axis + 1])
                new = (*shape[:axis], times, *shape[axis:])
                self.add(self.g("Expand", wide, [1, *new]), new)

    def contract(self) -> None:
        """A value with itself or with another, batched."""
        if value := self.pick(lambda shape: len(shape) > 1):
            x, shape = value
            other = self.pick(lambda s: len(s) == len(shape) and s[:-2] == shape[:-2] and s[-1] == shape[-1])
            assert other is not None
            order = [*range(len(shape) - 1), len(shape), len(shape) - 1]
            y = self.g("MatMul", x, self.g("Transpose", other[0], perm=order))
            self.add(self.g("Tanh", y), (*shape[:-1], other[1][-2]))

    def pad(self) -> None:
        if value := self.pick():
            x, shape = value
            axis = self.axis(shape)
            pads = [0] * (2 * len(shape) + 2)
            pads[axis + 1], pads[axis + len(shape) + 2] = 1, 2
            self.add(self.g("Pad", x, pads), (*shape[:axis], shape[axis] + 3, *shape[axis + 1 :]))

    def conv(self) -> None:
        if value := self.pick(lambda shape: len(shape) == 2):
            x, (channels, length) = value
            groups = int(self.rng.choice([n for n in (1, 1, 2, 3, channels) if channels % n == 0]))
            outputs = groups * int(self.rng.choice([1, 2, 3]))
            w = self.g.weight(f"w{len(self.g.nodes)}", outputs, channels // groups, 3)
            self.add(self.g("Conv", x, w, group=groups, pads=[1, 1], kernel_shape=[3]), (outputs, length))


OPS = (
    *(Writer.linear, Writer.linear, Writer.factor, Writer.factor, Writer.merge, Writer.transpose, Writer.concat),
    *(Writer.split, Writer.slice, Writer.take, Writer.combine, Writer.combine, Writer.broadcast, Writer.unary),
    *(Writer.reduce, Writer.softmax, Writer.norm, Writer.tile, Writer.contract, Writer.pad, Writer.conv),
)


def begin(writer: Writer) -> None:
    """Give it an input of seven numbers and two projections of it to begin with."""
    g = writer.g
    x = g.input("x", "B", 7)
    for k, width in enumerate((12, 8)):
        y = g("Add", g("MatMul", x, g.weight(f"w_in{k}", 7, width)), g.weight(f"b_in{k}", width, scale=0.5))
        writer.add(y, (width,))


def finish(writer: Writer) -> onnx.ModelProto:
    """The model; what nothing has used yet is flattened and summed up into its output."""
    g = writer.g
    used = {name for node in g.nodes for name in node.input}
    ends = [(name, shape) for name, shape in writer.values if name not in used]
    total = None
    for k, (name, shape) in enumerate(ends):
        flat = g("Flatten", name)
        y = g("MatMul", flat, g.weight(f"w_out{k}", int(np.prod(shape)), 5))
        total = y if total is None else g("Add", total, y)
    assert total is not None
    g.output(total, "B", 5)
    return g.model()


def random_graph(seed: int, length: int = 14) -> onnx.ModelProto:
    """A graph of some `length` ops."""
    writer = Writer(seed)
    begin(writer)
    for _ in range(length):
        OPS[writer.rng.integers(len(OPS))](writer)
    return finish(writer)
