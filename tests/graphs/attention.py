"""Small attention layers, one for every way in which exporters write heads.

Everywhere 10 is the hidden size, 3 the heads, 4 the head_dim (8 under RoPE), 7 and 5 the widths of input and output.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.builder import Builder, Operand, linear

E, H, D = 10, 3, 4


def stem(g: Builder) -> str:
    """An input and the first linear layer, so that the hidden size is free."""
    return linear(g, g.input("x", "B", "S", 7), "in", 7, E)


def finish(g: Builder, h: str) -> onnx.ModelProto:
    """The last linear layer and the output."""
    y = linear(g, h, "out", E, 5)
    g.output(y, "B", "S", 5)
    return g.model()


def heads(g: Builder, x: str, heads: int = H, width: int = D, target: Operand = None) -> str:
    """[B, S, heads·width] -> [B, heads, S, width]."""
    shaped = g("Reshape", x, [0, 0, heads, width] if target is None else target)
    return g("Transpose", shaped, perm=[0, 2, 1, 3])


def attend(g: Builder, q: str, k: str, v: str, width: int = D, bias: str | None = None, scale: Operand = None) -> str:
    """Scores, softmax, values: [B, heads, S, width] -> [B, S, heads·width]."""
    scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g("Mul", scores, float(width**-0.5) if scale is None else scale)
    if bias:
        scores = g("Add", scores, bias)
    mixed = g("MatMul", g("Softmax", scores, axis=-1), v)
    return g("Transpose", mixed, perm=[0, 2, 1, 3])


def merge(g: Builder, x: str, name: str, width: int = H * D, target: Operand = None) -> str:
    """[B, S, heads, width] back to the hidden size."""
    return linear(g, g("Reshape", x, [0, 0, width] if target is None else target), name, width, E)


def separate(g: Builder, h: str, layer: str = "", bias: str | None = None) -> str:
    """A residual attention layer with three weights."""
    q, k, v = (heads(g, linear(g, h, f"{name}{layer}", E, H * D)) for name in "qkv")
    return g("Add", h, merge(g, attend(g, q, k, v, bias=bias), f"o{layer}"))


def mha() -> onnx.ModelProto:
    g = Builder("mha")
    return finish(g, separate(g, stem(g)))


def fused_qkv() -> onnx.ModelProto:
    """One weight q|k|v, split into three."""
    g = Builder("fused_qkv")
    h = stem(g)
    parts = g("Split", linear(g, h, "qkv", E, 3 * H * D), [H * D] * 3, axis=-1, n=3)
    q, k, v = (heads(g, part) for part in parts)
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def _packed(name: str, inner: list[int], perm: list[int], part_axis: int) -> onnx.ModelProto:
    """`inner` is how [S, 36] is seen: [3, H, D] or [H, 3, D]; parts are taken by Gather."""
    g = Builder(name)
    h = stem(g)
    packed = g("Reshape", linear(g, h, "qkv", E, 3 * H * D), [0, -1, *inner])
    packed = g("Transpose", packed, perm=perm)
    q, k, v = (g("Gather", packed, np.array(part), axis=part_axis) for part in range(3))
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o", target=[0, -1, H * D])))


def packed_3hd() -> onnx.ModelProto:
    return _packed("packed_3hd", [3, H, D], [2, 0, 3, 1, 4], 0)


def packed_h3d() -> onnx.ModelProto:
    return _packed("packed_h3d", [H, 3, D], [3, 0, 2, 1, 4], 0)


def packed_h_3d() -> onnx.ModelProto:
    """[H, 3·D], as GPT-NeoX has it: the last axis is split."""
    g = Builder("packed_h_3d")
    h = stem(g)
    packed = heads(g, linear(g, h, "qkv", E, 3 * H * D), H, 3 * D)
    q, k, v = g("Split", packed, [D] * 3, axis=-1, n=3)
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def shape_chain() -> onnx.ModelProto:
    """Reshape targets and the scale are computed from Shape, as the legacy exporter writes them."""
    g = Builder("shape_chain")
    h = stem(g)

    def lengths(x: str, *tail: int) -> str:
        sizes = [g("Gather", g("Shape", x), np.array(k), axis=0) for k in (0, 1)]
        parts = [g("Unsqueeze", size, [0]) for size in sizes]
        return g("Concat", *parts, *(np.array([n]) for n in tail), axis=0)

    def split(name: str) -> str:
        x = linear(g, h, name, E, H * D)
        return heads(g, x, target=lengths(x, H, D))

    q, k, v = split("q"), split("k"), split("v")
    width = g("Slice", g("Shape", q), [-1], [2**63 - 1])
    scale = g("Div", 1.0, g("Sqrt", g("Cast", width, to=onnx.TensorProto.FLOAT)))
    mixed = attend(g, q, k, v, scale=scale)
    return finish(g, g("Add", h, merge(g, mixed, "o", target=lengths(mixed, H * D))))


def self_adjusting() -> onnx.ModelProto:
    """`Reshape(x, Concat(-1, Shape(x)[-2:]))`, as dynamo writes attention: the target follows the tensor by itself."""
    g = Builder("self_adjusting", opset=20)
    h = stem(g)
    q, k, v = (heads(g, linear(g, h, name, E, H * D)) for name in "qkv")
    flat = g("Reshape", k, g("Concat", np.array([-1]), g("Shape", k, start=-2), axis=0))
    turned = g("Transpose", flat, perm=[0, 2, 1])
    front, back = g("Shape", k, end=-2), g("Shape", k, start=-2)
    last, before = g("Slice", back, [1], [2]), g("Slice", back, [0], [1])
    keys = g("Reshape", turned, g("Concat", front, last, before, axis=0))
    scores = g("Softmax", g("Mul", g("MatMul", q, keys), 0.5), axis=-1)
    mixed = g("Transpose", g("MatMul", scores, v), perm=[0, 2, 1, 3])
    lengths = g("Concat", g("Shape", mixed, end=2), np.array([-1]), axis=0)
    return finish(g, g("Add", h, merge(g, mixed, "o", target=lengths)))


def rope_tables(g: Builder, width: int, name: str = "") -> tuple[str, str]:
    """cos and sin of [S, width], folded for up to 64 positions and sliced to the length of x."""
    angle = np.outer(np.arange(64), 1 / 10 ** np.linspace(0, 1, width))
    length = g("Shape", "x", start=1, end=2)
    tables = (g.const(f"{kind}{name}", fn(angle), np.float32) for kind, fn in (("cos", np.cos), ("sin", np.sin)))
    cos, sin = (g("Slice", table, [0], length, [0]) for table in tables)
    return cos, sin


def rotate_half(g: Builder, x: str, width: int, cos: str, sin: str) -> str:
    first, second = (g("Slice", x, [a], [b], [3]) for a, b in ((0, width // 2), (width // 2, 2**63 - 1)))
    turned = g("Concat", g("Neg", second), first, axis=-1)
    return g("Add", g("Mul", x, cos), g("Mul", turned, sin))


def _rope(name: str, rotate: Callable[[Builder, str, str, str], str], table: int, width: int = 8) -> onnx.ModelProto:
    g = Builder(name)
    h = stem(g)
    cos, sin = rope_tables(g, table)
    q, k, v = (heads(g, linear(g, h, part, E, H * width), width=width) for part in "qkv")
    q, k = rotate(g, q, cos, sin), rotate(g, k, cos, sin)
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v, width), "o", H * width)))


def rope_half() -> onnx.ModelProto:
    return _rope("rope_half", lambda g, x, cos, sin: rotate_half(g, x, 8, cos, sin), 8)


def rope_partial() -> onnx.ModelProto:
    """The first four dims of eight are turned."""

    def rotate(g: Builder, x: str, cos: str, sin: str) -> str:
        turned, rest = g("Split", x, [4, 4], axis=-1, n=2)
        return g("Concat", rotate_half(g, turned, 4, cos, sin), rest, axis=-1)

    return _rope("rope_partial", rotate, 4)


def rope_interleaved() -> onnx.ModelProto:
    """Even and odd dims are the pairs: two lanes, put together again by a concatenation of ones and a Reshape."""

    def rotate(g: Builder, x: str, cos: str, sin: str) -> str:
        even, odd = (g("Slice", x, [start], [2**63 - 1], [3], [2]) for start in (0, 1))
        turned = [g("Unsqueeze", part, [-1]) for part in (g("Neg", odd), even)]
        stacked = g("Reshape", g("Concat", *turned, axis=-1), [0, 0, 0, 8])
        return g("Add", g("Mul", x, cos), g("Mul", stacked, sin))

    return _rope("rope_interleaved", rotate, 8)


def slice_assigned() -> onnx.ModelProto:
    """`q = zeros(…); q[..., :4] = a; q[..., 4:] = b`, as dynamo writes it: the last axis first, then a ScatterND."""

    def rotate(g: Builder, x: str, cos: str, sin: str) -> str:
        turned, rest = g("Split", x, [4, 4], axis=-1, n=2)
        whole = g("ConstantOfShape", g("Shape", x), value=onnx.numpy_helper.from_array(np.zeros(1, np.float32)))
        for at, part in ((0, rest), (4, rotate_half(g, turned, 4, cos, sin))):
            flipped = (g("Transpose", each, perm=[3, 1, 2, 0]) for each in (whole, part))
            data, updates = flipped
            written = g("ScatterND", data, np.arange(at, at + 4).reshape(4, 1), updates)
            whole = g("Transpose", written, perm=[3, 1, 2, 0])
        return str(whole)

    return _rope("slice_assigned", rotate, 4)


def block_assigned() -> onnx.ModelProto:
    """`scores[:, :, 1:, 1:] += bias`, as the legacy exporter writes it: every position of the block, from ranges."""
    g = Builder("block_assigned")
    h = linear(g, g.input("x", "B", 6, 7), "in", 7, E)
    q, k, v = (heads(g, linear(g, h, name, E, H * D)) for name in "qkv")
    scores = g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), 0.5)
    inner = g("Slice", scores, [1, 1], [6, 6], [2, 3])
    lengths = g("Shape", inner)
    columns = []
    for axis, first in enumerate((0, 0, 1, 1)):
        length = g("Squeeze", g("Slice", lengths, [axis], [axis + 1]), [0])
        steps = g("Range", np.array(first), g("Add", length, np.array(first)), np.array(1))
        line = g("Reshape", steps, [-1 if k == axis else 1 for k in range(4)])
        columns.append(g("Unsqueeze", g("Expand", line, lengths), [-1]))
    written = g("ScatterND", scores, g("Concat", *columns, axis=-1), g("Add", inner, g.weight("bias", H, 5, 5)))
    mixed = g("Transpose", g("MatMul", g("Softmax", written, axis=-1), v), perm=[0, 2, 1, 3])
    h = g("Add", h, merge(g, mixed, "o"))
    g.output(linear(g, h, "out", E, 5), "B", 6, 5)
    return g.model()


def rope_partial_interleaved() -> onnx.ModelProto:
    """GPT-J: of eight dims the first four turn, in pairs of neighbours; a sum under the product of heads and dims."""

    def rotate(g: Builder, x: str, cos: str, sin: str) -> str:
        turned, rest = g("Split", x, [4, 4], axis=-1, n=2)
        even, odd = (g("Slice", turned, [start], [2**63 - 1], [3], [2]) for start in (0, 1))
        lanes = [g("Unsqueeze", part, [-1]) for part in (g("Neg", odd), even)]
        stacked = g("Reshape", g("Concat", *lanes, axis=-1), [0, 0, 0, 4])
        new = g("Add", g("Mul", turned, cos), g("Mul", stacked, sin))
        return g("Concat", new, rest, axis=-1)

    return _rope("rope_partial_interleaved", rotate, 4)


def _grouped(name: str, groups: int, queries: int, rope: bool) -> onnx.ModelProto:
    """Query heads share keys and values, repeated by Unsqueeze, Expand, Reshape."""
    g = Builder(name)
    h = stem(g)
    width, total = 6, groups * queries
    q = heads(g, linear(g, h, "q", E, total * width), total, width)
    k, v = (heads(g, linear(g, h, part, E, groups * width), groups, width) for part in "kv")
    if rope:
        cos, sin = rope_tables(g, width)
        q, k = (rotate_half(g, part, width, cos, sin) for part in (q, k))

    def repeat(x: str) -> str:
        lengths = g("Shape", x)
        batch, rows = (g("Slice", lengths, [at], [at + 1]) for at in (0, 2))
        target = g("Concat", batch, np.array([groups, queries]), rows, np.array([width]), axis=0)
        wide = g("Expand", g("Unsqueeze", x, [2]), target)
        return g("Reshape", wide, g("Concat", batch, np.array([total]), rows, np.array([width]), axis=0))

    mixed = attend(g, q, repeat(k), repeat(v), width)
    return finish(g, g("Add", h, merge(g, mixed, "o", total * width)))


def gqa() -> onnx.ModelProto:
    return _grouped("gqa", 2, 3, rope=False)


def gqa_rope() -> onnx.ModelProto:
    return _grouped("gqa_rope", 2, 3, rope=True)


def mqa() -> onnx.ModelProto:
    return _grouped("mqa", 1, 4, rope=False)


def mqa_broadcast() -> onnx.ModelProto:
    """One key and value head, broadcast by MatMul itself."""
    g = Builder("mqa_broadcast")
    h = stem(g)
    q = heads(g, linear(g, h, "q", E, H * D))
    k, v = (heads(g, linear(g, h, part, E, D), 1) for part in "kv")
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def bias_for_all_layers() -> onnx.ModelProto:
    """T5: one small table [buckets, heads], gathered by positions, biases the scores of two layers."""
    g = Builder("bias_for_all_layers")
    h = stem(g)
    position = g("Range", np.array(0), g("Gather", g("Shape", h), np.array(1), axis=0), np.array(1))
    distance = g("Sub", g("Unsqueeze", position, [0]), g("Unsqueeze", position, [1]))
    before = g("Cast", g("Less", distance, np.array(0)), to=TensorProto.INT64)
    bias = g("Unsqueeze", g("Transpose", g("Gather", g.weight("table", 2, H), before), perm=[2, 0, 1]), [0])
    for layer in ("_1", "_2"):
        h = separate(g, h, layer, bias=bias)
    return finish(g, h)


def bias_table() -> onnx.ModelProto:
    """A relative-position table [distances, heads], gathered by a table of distances."""
    g = Builder("bias_table")
    h = stem(g)
    length = g("Shape", "x", start=1, end=2)
    distance = np.clip(np.subtract.outer(np.arange(40), np.arange(40)) + 8, 0, 16)
    rows = g("Slice", g.const("distance", distance), [0, 0], g("Concat", length, length, axis=0), [0, 1])
    bias = g("Transpose", g("Gather", g.weight("table", 17, H, scale=2.0), rows, axis=0), perm=[2, 0, 1])
    return finish(g, separate(g, h, bias=g("Unsqueeze", bias, [0])))


def bias_folded() -> onnx.ModelProto:
    """A folded bias [1, H, S, S] that two layers share; static length."""
    g = Builder("bias_folded")
    h = linear(g, g.input("x", "B", 9, 7), "in", 7, E)
    g.weight("bias", 1, H, 9, 9, scale=2.0)
    h = separate(g, separate(g, h, "0", "bias"), "1", "bias")
    g.output(linear(g, h, "out", E, 5), "B", 9, 5)
    return g.model()


def masked() -> onnx.ModelProto:
    """A padding mask and a causal mask, both turned into a bias, and a fused qkv cut by Slice."""
    g = Builder("masked")
    h = stem(g)
    padding = g.input("mask", "B", "S", dtype=onnx.TensorProto.INT64)
    length = g("Shape", "mask", start=1, end=2)
    causal = g("Trilu", g("Expand", np.ones((1, 1), np.float32), g("Concat", length, length, axis=0)), upper=0)
    wide = g("Unsqueeze", g("Cast", padding, to=onnx.TensorProto.FLOAT), [1, 2])
    visible = g("Greater", g("Mul", causal, wide), 0.0)
    bias = g("Where", visible, 0.0, -3.0e4)
    qkv = linear(g, h, "qkv", E, 3 * H * D)
    q, k, v = (heads(g, g("Slice", qkv, [12 * k], [12 * k + 12], [2])) for k in range(3))
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v, bias=bias), "o")))


def mask_expanded() -> onnx.ModelProto:
    """A padding mask that Expand repeats for every head: copies of a mask make no heads that share keys."""
    g = Builder("mask_expanded")
    h = stem(g)
    padding = g.input("mask", "B", "S", dtype=onnx.TensorProto.INT64)
    wide = g("Unsqueeze", g("Cast", padding, to=onnx.TensorProto.BOOL), [1, 2])
    batch, length = (g("Shape", "mask", start=k, end=k + 1) for k in (0, 1))
    every = g("Expand", wide, g("Concat", batch, np.array([H]), length, length, axis=0))
    q, k, v = (heads(g, linear(g, h, name, E, H * D)) for name in "qkv")
    scores = g("Where", every, g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), 0.5), -3.0e4)
    mixed = g("Transpose", g("MatMul", g("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    return finish(g, g("Add", h, merge(g, mixed, "o")))


def padded_to_blocks() -> onnx.ModelProto:
    """Attention within blocks of 64 positions: a short sequence is padded to one block, whatever its length."""
    g = Builder("padded_to_blocks")
    h = stem(g)
    batch, length = (g("Shape", "x", start=k, end=k + 1) for k in (0, 1))
    missing = g("Mod", g("Sub", np.array([64]), g("Mod", length, np.array([64]))), np.array([64]))
    padded = g("Pad", h, g("Concat", np.array([0, 0, 0, 0]), missing, np.array([0]), axis=0))
    blocks = g("Div", g("Add", length, missing), np.array([64]))

    def cut(x: str) -> str:
        shape = g("Concat", batch, blocks, np.array([64, H, D]), axis=0)
        return g("Transpose", g("Reshape", x, shape), perm=[0, 1, 3, 2, 4])

    q, k, v = (cut(linear(g, padded, name, E, H * D)) for name in "qkv")
    scores = g("Softmax", g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 2, 4, 3])), 0.5), axis=-1)
    mixed = g("Transpose", g("MatMul", scores, v), perm=[0, 1, 3, 2, 4])
    whole = g("Reshape", mixed, g("Concat", batch, g("Mul", blocks, np.array([64])), np.array([H * D]), axis=0))
    kept = g("Slice", whole, [0], length, [1])
    return finish(g, g("Add", h, linear(g, kept, "o", H * D, E)))


def cross_attention() -> onnx.ModelProto:
    """Queries of one sequence, keys and values of another; QK-norm weights of the head_dim alone."""
    g = Builder("cross_attention")
    h = stem(g)
    memory = g.input("memory", "B", "T", 6)
    q = heads(g, linear(g, h, "q", E, H * D))
    k, v = (heads(g, linear(g, memory, part, 6, H * D)) for part in "kv")
    q, k = (g("Mul", part, g.weight(f"{name}_scale", D, scale=1.0)) for part, name in ((q, "q"), (k, "k")))
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


ATTENTION: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(mha, fused_qkv, packed_3hd, packed_h3d, packed_h_3d, shape_chain, self_adjusting),
    *(rope_half, rope_partial, rope_interleaved, rope_partial_interleaved, slice_assigned, block_assigned),
    *(gqa, gqa_rope, mqa, mqa_broadcast),
    *(bias_table, bias_for_all_layers, bias_folded, masked, mask_expanded, padded_to_blocks, cross_attention),
)
