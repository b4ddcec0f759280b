"""Small attention layers of rarer kinds: heads folded into the batch, side inputs, means over heads, caches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.graphs.attention import D, E, H, attend, finish, heads, merge, stem
from tests.graphs.builder import Builder, layer_norm, linear


def folded_heads() -> onnx.ModelProto:
    """Heads folded into the batch for a three-dimensional product, as BART and BLOOM do."""
    g = Builder("folded_heads")
    h = stem(g)
    batch, rows = (g("Gather", g("Shape", h), np.array(k)) for k in (0, 1))
    count = g("Unsqueeze", g("Mul", batch, np.array(H)), [0])
    flat = g("Concat", count, g("Unsqueeze", rows, [0]), np.array([D]), axis=0)
    q, k, v = (g("Reshape", heads(g, linear(g, h, part, E, H * D)), flat) for part in "qkv")
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 2, 1])), axis=-1)
    lengths = g("Concat", g("Unsqueeze", batch, [0]), np.array([H]), g("Unsqueeze", rows, [0]), np.array([D]), axis=0)
    mixed = g("Transpose", g("Reshape", g("MatMul", scores, v), lengths), perm=[0, 2, 1, 3])
    return finish(g, g("Add", h, merge(g, mixed, "o")))


def folded_heads_inferred() -> onnx.ModelProto:
    """The same with -1 for the batch."""
    g = Builder("folded_heads_inferred")
    h = linear(g, g.input("x", "B", 9, 7), "in", 7, E)
    q, k, v = (g("Reshape", heads(g, linear(g, h, part, E, H * D)), [-1, 9, D]) for part in "qkv")
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 2, 1])), axis=-1)
    mixed = g("Transpose", g("Reshape", g("MatMul", scores, v), [-1, H, 9, D]), perm=[0, 2, 1, 3])
    g.output(linear(g, g("Add", h, merge(g, mixed, "o")), "out", E, 5), "B", 9, 5)
    return g.model()


def _parts(g: Builder, h: str) -> list[str]:
    return [heads(g, linear(g, h, part, E, H * D)) for part in "qkv"]


def sinks() -> onnx.ModelProto:
    """A learnt score a head that takes part in the softmax and is dropped again."""
    g = Builder("sinks")
    h = stem(g)
    q, k, v = _parts(g, h)
    scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    ends = [g("Shape", scores, start=at, end=at + 1) for at in (0, 2)]
    column = g("Reshape", g.weight("sinks", H, scale=1.0), [1, H, 1, 1])
    column = g("Expand", column, g("Concat", ends[0], np.array([H]), ends[1], np.array([1]), axis=0))
    chances = g("Softmax", g("Concat", scores, column, axis=-1), axis=-1)
    mixed = g("MatMul", g("Slice", chances, [0], [-1], [3]), v)
    return finish(g, g("Add", h, merge(g, g("Transpose", mixed, perm=[0, 2, 1, 3]), "o")))


def alibi() -> onnx.ModelProto:
    """A slope a head times distances that are computed."""
    g = Builder("alibi")
    h = stem(g)
    length = g("Squeeze", g("Shape", "x", start=1, end=2), [0])
    where = g("Cast", g("Range", np.array(0), length, np.array(1)), to=onnx.TensorProto.FLOAT)
    distance = g("Sub", g("Unsqueeze", where, [0]), g("Unsqueeze", where, [1]))
    bias = g("Mul", g("Abs", distance), g.weight("slopes", H, 1, 1, scale=0.3))
    q, k, v = _parts(g, h)
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v, bias=bias), "o")))


def mean_over_heads() -> onnx.ModelProto:
    """Attention averaged over heads gates the tokens: heads are inexact."""
    g = Builder("mean_over_heads")
    h = stem(g)
    q, k, v = _parts(g, h)
    chances = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    gate = g("ReduceMax", g("ReduceMean", chances, axes=[1], keepdims=0), axes=[2])
    mixed = merge(g, g("Transpose", g("MatMul", chances, v), perm=[0, 2, 1, 3]), "o")
    return finish(g, g("Add", h, g("Mul", mixed, gate)))


def norm_after_merging() -> onnx.ModelProto:
    """A LayerNorm over all heads before the output projection."""
    g = Builder("norm_after_merging")
    h = stem(g)
    q, k, v = _parts(g, h)
    merged = g("Reshape", attend(g, q, k, v), [0, 0, H * D])
    return finish(g, g("Add", h, linear(g, layer_norm(g, merged, "norm", H * D), "o", H * D, E)))


def norm_of_heads() -> onnx.ModelProto:
    """Queries and keys are normalized over the head_dim: it is inexact, and one choice for all heads."""
    g = Builder("norm_of_heads")
    h = stem(g)
    q, k, v = _parts(g, h)
    q, k = (layer_norm(g, part, name, D) for part, name in ((q, "q_norm"), (k, "k_norm")))
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def one_weight_for_heads() -> onnx.ModelProto:
    """Heads go into the sequence, one small weight serves all of them."""
    g = Builder("one_weight_for_heads")
    h = stem(g)
    rows = g("Reshape", linear(g, h, "up", E, 12), [0, -1, 4])
    small = g("Relu", linear(g, rows, "small", 4, 6))
    lengths = g("Concat", g("Shape", h, start=0, end=2), np.array([18]), axis=0)
    return finish(g, g("Add", h, linear(g, g("Reshape", small, lengths), "down", 18, E)))


def two_views_of_heads() -> onnx.ModelProto:
    """Twelve values seen as three fours and as six twos: both views in one are 3·2·2."""
    g = Builder("two_views_of_heads")
    h = stem(g)
    v = linear(g, h, "v", E, 12)
    mixed = []
    for layer, count in (("3", 3), ("6", 6)):
        q, k = (heads(g, linear(g, h, part + layer, E, 4 * count), count, 4) for part in "qk")
        mixed.append(merge(g, attend(g, q, k, heads(g, v, count, 12 // count)), f"o{layer}"))
    return finish(g, g("Add", h, g("Add", *mixed)))


def views_that_clash() -> onnx.ModelProto:
    """Twelve values seen as three fours and as four threes have no view in common."""
    g = Builder("views_that_clash")
    h = stem(g)
    v = linear(g, h, "v", E, 12)
    mixed = []
    for layer, count in (("3", 3), ("4", 4)):
        q, k = (heads(g, linear(g, h, part + layer, E, 5 * count), count, 5) for part in "qk")
        mixed.append(merge(g, attend(g, q, k, heads(g, v, count, 12 // count)), f"o{layer}"))
    return finish(g, g("Add", h, g("Add", *mixed)))


def einsum_attention() -> onnx.ModelProto:
    """Weights [E, H, D] and scores written as Einsum."""
    g = Builder("einsum_attention")
    h = stem(g)
    q, k, v = (g("Einsum", h, g.weight(f"w_{name}", E, H, D), equation="bse,ehd->bshd") for name in "qkv")
    scores = g("Softmax", g("Einsum", q, k, equation="bihd,bjhd->bhij"), axis=-1)
    mixed = g("Einsum", scores, v, equation="bhij,bjhd->bihd")
    return finish(g, g("Add", h, g("Einsum", mixed, g.weight("w_o", H, D, E), equation="bshd,hde->bse")))


def _grouped_queries(g: Builder, h: str) -> tuple[str, str, str]:
    """Queries [B, S, g, j, d], keys and values [B, S, g, d]."""
    groups, each = 2, 3
    q = g("Reshape", linear(g, h, "q", E, groups * each * D), [0, 0, groups, each, D])
    k, v = (g("Reshape", linear(g, h, name, E, groups * D), [0, 0, groups, D]) for name in "kv")
    return q, k, v


def einsum_grouped() -> onnx.ModelProto:
    """Grouped queries by an einsum over groups and the queries of each, as jax2onnx lowers it: no key is repeated."""
    g = Builder("einsum_grouped")
    h = stem(g)
    q, k, v = _grouped_queries(g, h)
    p = g("Softmax", g("Mul", g("Einsum", q, k, equation="bsgjd,btgd->bgjst"), 0.5), axis=-1)
    mixed = g("Reshape", g("Einsum", p, v, equation="bgjst,btgd->bsgjd"), [0, 0, 6 * D])
    return finish(g, g("Add", h, linear(g, mixed, "o", 6 * D, E)))


def broadcast_grouped() -> onnx.ModelProto:
    """Grouped queries by MatMul, which broadcasts keys and values over the queries of a group."""
    g = Builder("broadcast_grouped")
    h = stem(g)
    q, k, v = _grouped_queries(g, h)
    q = g("Transpose", q, perm=[0, 2, 3, 1, 4])
    k = g("Unsqueeze", g("Transpose", k, perm=[0, 2, 3, 1]), [2])
    v = g("Unsqueeze", g("Transpose", v, perm=[0, 2, 1, 3]), [2])
    p = g("Softmax", g("Mul", g("MatMul", q, k), 0.5), axis=-1)
    mixed = g("Reshape", g("Transpose", g("MatMul", p, v), perm=[0, 3, 1, 2, 4]), [0, 0, 6 * D])
    return finish(g, g("Add", h, linear(g, mixed, "o", 6 * D, E)))


def maxout() -> onnx.ModelProto:
    """Pairs of neurons, the larger one counts."""
    g = Builder("maxout")
    h = stem(g)
    pairs = g("Reshape", linear(g, h, "up", E, 28), [0, 0, 14, 2])
    return finish(g, g("Add", h, linear(g, g("ReduceMax", pairs, axes=[3], keepdims=0), "down", 14, E)))


def kv_cache() -> onnx.ModelProto:
    """Keys and values of the past are inputs, those of now outputs: heads stay whole unless these may shrink."""
    g = Builder("kv_cache")
    h = stem(g)
    q, k, v = _parts(g, h)
    past = [g.input(f"past_{name}", "B", H, "P", D) for name in ("key", "value")]
    k, v = (g("Concat", old, new, axis=2) for old, new in zip(past, (k, v), strict=True))
    for value in (k, v):
        g.output(value, "B", H, "P+S", D)
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def old_opset() -> onnx.ModelProto:
    """Opset 11: axes and lengths are attributes, equal parts need none."""
    g = Builder("old_opset", opset=11)
    h = stem(g)
    qkv = linear(g, h, "qkv", E, 3 * H * D)
    q, k, v = (heads(g, part) for part in g("Split", qkv, axis=2, n=3))
    h = g("Add", h, merge(g, attend(g, q, k, v), "o"))
    gate, up = g("Split", linear(g, h, "gate_up", E, 28), axis=2, split=[14, 14], n=2)
    return finish(g, g("Add", h, linear(g, g("Mul", g("Tanh", gate), up), "down", 14, E)))


HEADS: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(folded_heads, folded_heads_inferred, sinks, alibi, mean_over_heads, norm_after_merging, norm_of_heads),
    *(one_weight_for_heads, two_views_of_heads, views_that_clash, einsum_attention, einsum_grouped, broadcast_grouped),
    *(maxout, kv_cache, old_opset),
)
