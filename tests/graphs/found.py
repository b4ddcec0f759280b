"""What random graphs found, reduced: small graphs that once came out wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.graphs.builder import Builder, linear


def _hidden(g: Builder, width: int) -> str:
    return str(g("Relu", linear(g, g.input("x", "B", 7), "in", 7, width)))


def _finish(g: Builder, *ends: tuple[str, int]) -> onnx.ModelProto:
    """Every end has a weight of its own; the sum is the output."""
    parts = [linear(g, g("Flatten", name), f"out{k}", width, 5) for k, (name, width) in enumerate(ends)]
    total = parts[0]
    for part in parts[1:]:
        total = g("Add", total, part)
    g.output(total, "B", 5)
    return g.model()


def counted_from_the_end() -> onnx.ModelProto:
    """Slices and an index that count from the end, where what comes after them gets shorter."""
    g = Builder("counted_from_the_end")
    h = _hidden(g, 12)
    body = g("Slice", h, [-10], [-4], [1])
    one = g("Gather", h, np.array([-3]), axis=1)
    return _finish(g, (h, 12), (body, 6), (one, 1))


def rows_multiplied() -> onnx.ModelProto:
    """Every row meets every other one: they cannot each keep columns of their own."""
    g = Builder("rows_multiplied")
    rows = g("Reshape", _hidden(g, 12), [0, 3, 4])
    square = g("Mul", g("MatMul", rows, g("Transpose", rows, perm=[0, 2, 1])), 0.1)
    return _finish(g, (square, 9))


def softmax_over_rows() -> onnx.ModelProto:
    """Rows meet in a softmax; they stay, and have their columns in common."""
    g = Builder("softmax_over_rows")
    h = _hidden(g, 12)
    return _finish(g, (g("Softmax", g("Reshape", h, [0, 3, 4]), axis=1), 12), (h, 12))


def norm_then_take() -> onnx.ModelProto:
    """One slot of a norm is not the norm of one slot."""
    g = Builder("norm_then_take")
    h = linear(g, g.input("x", "B", 7), "in", 7, 6)
    scale, bias = g.weight("scale", 6, scale=1.0), g.weight("bias", 6, scale=1.0)
    return _finish(g, (g("Slice", g("LayerNormalization", h, scale, bias), [2], [3], [1]), 1))


def factor_twice() -> onnx.ModelProto:
    """Blocks times what blocks were made from: the blocks stand twice in the flattened product."""
    g = Builder("factor_twice")
    h = _hidden(g, 12)
    blocks = g("MatMul", g("Unsqueeze", g("Reshape", h, [0, 3, 4]), [2]), g.weight("w_blocks", 3, 4, 2))
    pairs = g("Mul", g("Reshape", blocks, [0, 6, 1]), g("Unsqueeze", h, [1]))
    return _finish(g, (pairs, 72))


def slots_alone() -> onnx.ModelProto:
    """Three slots, the last one taken apart once, and the one in the middle once: none is left to choose."""
    g = Builder("slots_alone")
    h = g("Reshape", _hidden(g, 12), [0, 3, 4])
    last, middle = g("Gather", h, np.array(2), axis=1), g("Slice", h, [1], [2], [1])
    return _finish(g, (h, 12), (last, 4), (middle, 4))


FOUND: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(counted_from_the_end, rows_multiplied, softmax_over_rows, norm_then_take, factor_twice, slots_alone),
)
