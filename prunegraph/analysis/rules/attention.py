"""Fused attention: heads, query heads, and what Q·K and scores·V sum over, told apart inside one op.

Every operand is `heads·width` (three axes) or has both as axes of their own (four), so that heads, `qk_dim` and `v_dim`
come out as they do where the exporter has spelt attention out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunegraph.analysis.axes import Axes, Expr, Fresh, Prod, Ref, Size, Sum
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, Contraction, NodeView, Reduce, Reduction, SizeSite
from prunegraph.analysis.rules.elementwise import MICROSOFT, broadcast


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """An operand of attention, taken apart: which axes are batch and positions, and what the others are made of."""

    batch: Ref
    positions: Ref
    rule: AxisRule


def layout(axes: Axes, heads: Sequence[Expr], width: Expr) -> HeadLayout:
    """`[batch, positions, heads·width]` or `[batch, heads, positions, width]`."""
    if len(axes) == 3:
        return HeadLayout(axes[0], axes[1], AxisRule(equal=((axes[2], Prod((*heads, width))),)))
    if len(axes) == 4:
        return HeadLayout(axes[0], axes[2], AxisRule(equal=((axes[1], Prod(tuple(heads))), (axes[3], width))))
    raise CannotAnalyze(f"an operand of attention with {len(axes)} axes")


def whole(why: str, *operands: Axes | None) -> AxisRule:
    """Every axis of the operands stays whole."""
    return AxisRule(pins=tuple((ref, why) for axes in operands for ref in axes or ()))


def same(*refs: Ref) -> AxisRule:
    """All the first axis, except those of length one, which broadcast."""
    return AxisRule(equal=tuple((refs[0], ref) for ref in refs[1:] if ref.size == refs[0].size))


def over(node: NodeView, size: Size, count: int) -> Size:
    """A length divided among `count` parts.

    Raises:
        CannotAnalyze: there is a rest.
    """
    if count < 1 or any(n % count for n in size):
        raise CannotAnalyze(f"{node.op} with {count} parts of {size[0]}")
    return tuple(n // count for n in size)


def number(node: NodeView, name: str) -> int:
    """A count among the attributes, zero where it is left out."""
    return int(node.attr(name, 0))


def scored(
    node: NodeView,
    operands: tuple[int, int, int],
    batch: Expr,
    heads: Sequence[Expr],
    positions: tuple[Ref, Ref],
    widths: tuple[Expr, Expr],
) -> AxisRule:
    """The two contractions of attention, over the width of Q and K and over positions, and what its scale forbids."""
    q, k, v = operands
    queries, keys = positions
    qk, carried = widths
    scores = Contraction((q, k), (batch, *heads), (qk,), (queries,), (keys,), (batch, *heads, queries, keys, qk))
    mixed = Contraction((q, v), (batch, *heads), (), (queries,), (carried,), (batch, *heads, queries, keys, carried))
    pins: list[tuple[Expr, str]] = [(keys, f"{node.op} runs a Softmax along it")]
    if not node.attr("scale"):
        pins.append((qk, f"the scale of {node.op} follows its length"))
    if node.attr("is_causal") or node.attr("unidirectional") or node.op == "GroupQueryAttention":
        pins.append((queries, f"{node.op} masks by position"))
    return AxisRule(contractions=(scores, mixed), pins=tuple(pins))


def scores_like(axes: Axes | None, batch: Ref, heads: Fresh, queries: Ref, why: str) -> AxisRule:
    """A mask, a bias or the scores themselves: broadcasts to `[batch, heads, queries, keys]`, keys stay whole."""
    if not axes:
        return AxisRule()
    return broadcast(axes[:-1], (batch, heads, queries)) + whole(why, axes[-1:])


def cached(axes: Axes | None, batch: Ref, heads: Expr, width: Expr) -> AxisRule:
    """Past or present keys or values `[batch, heads, positions, width]`."""
    if axes is None:
        return AxisRule()
    rule = AxisRule(equal=((axes[1], heads), (axes[3], width)))
    return rule + same(batch, axes[0]) + whole("positions of a cache", axes[2:3])


@axis_rule("Attention")
def attention(node: NodeView) -> AxisRule:
    """ai.onnx: query heads `g·r` over `g` heads of keys and values, each with a width of its own."""
    q, k, v, y = node.input(0), node.input(1), node.input(2), node.output()
    kv_heads = k[1].size[0] if len(k) == 4 else number(node, "kv_num_heads")
    q_heads = q[1].size[0] if len(q) == 4 else number(node, "q_num_heads")
    g, r = node.fresh((kv_heads,) * node.probes, "g"), node.fresh(over(node, (q_heads,) * node.probes, kv_heads), "r")
    d = node.fresh(q[3].size if len(q) == 4 else over(node, q[2].size, q_heads), "d")
    e = node.fresh(v[3].size if len(v) == 4 else over(node, v[2].size, kv_heads), "v")
    heads = node.fresh((q_heads,) * node.probes, "h")
    of_q, of_k, of_v, of_y = layout(q, (g, r), d), layout(k, (g,), d), layout(v, (g,), e), layout(y, (g, r), e)
    rule = of_q.rule + of_k.rule + of_v.rule + of_y.rule + same(of_q.batch, of_k.batch, of_v.batch, of_y.batch)
    rule += same(of_q.positions, of_y.positions) + AxisRule(equal=((heads, Prod((g, r))),), copies=(r,))
    rule += whole("Attention runs a Softmax along it", (of_v.positions,))
    for index, width in ((4, d), (5, e)):
        rule += cached(node.optional_input(index), of_q.batch, g, width)
        rule += cached(node.optional_output(index - 3), of_q.batch, g, width)
    for scores in (node.optional_input(3), node.optional_output(3)):
        rule += scores_like(scores, of_q.batch, heads, of_q.positions, "Attention runs a Softmax along it")
    if lengths := node.optional_input(6):
        rule += same(of_q.batch, lengths[0])
    if any(number(node, f"{side}_window_size") for side in ("left", "right")):
        rule += whole("Attention masks by position", (of_q.positions,))
    sizes = (("q_num_heads", Prod((g, r))), ("kv_num_heads", g))
    rule += AxisRule(
        reduces=(Reduce(q[-1], Reduction.SUM),),
        rewrites=tuple(SizeSite(name, None, expr) for name, expr in sizes if number(node, name)),
    )
    return rule + scored(node, (0, 1, 2), of_q.batch, (g, r), (of_q.positions, of_k.positions), (d, e))


@axis_rule("Attention", domain=MICROSOFT)
def fused_qkv(node: NodeView) -> AxisRule:
    """com.microsoft: one weight `[inputs, h·d + h·d + h·v]` makes Q, K and V."""
    x, w, y = node.input(0), node.input(1), node.output()
    count = number(node, "num_heads")
    thirds = over(node, w[1].size, 3)[0]
    widths = [int(n) for n in node.attr("qkv_hidden_sizes") or (thirds,) * 3]
    if widths[0] != widths[1] or len(widths) != 3:
        raise CannotAnalyze("queries and keys of different width")
    h = node.fresh((count,) * node.probes, "h")
    d, e = (node.fresh(over(node, (n,) * node.probes, count), name) for n, name in ((widths[0], "d"), (widths[2], "v")))
    parts = (Prod((h, d)), Prod((h, d)), Prod((h, e)))
    caches = (node.optional_input(4), node.optional_output(1))
    tied = any(cache is not None for cache in caches) or not node.attr("qkv_hidden_sizes")
    rule = AxisRule(
        equal=((w[1], Sum(parts)), (x[2], w[0]), (x[1], y[1]), (y[2], Prod((h, e))), *(((d, e),) if tied else ())),
        reduces=(Reduce(x[2], Reduction.SUM), Reduce(w[1], Reduction.SUM, inside=True)),
        rewrites=(
            SizeSite("num_heads", None, h),
            *(SizeSite("qkv_hidden_sizes", k, part) for k, part in enumerate(parts) if node.attr("qkv_hidden_sizes")),
        ),
        contractions=(Contraction((0, 1), (), (x[2], w[0]), (x[0], x[1]), (w[1],), (x[0], x[1], *w)),),
    )
    if bias := node.optional_input(2):
        rule += AxisRule(equal=((bias[0], w[1]),), reduces=(Reduce(bias[0], Reduction.SUM, inside=True),))
    if node.attr("do_rotary"):
        rule += AxisRule(pins=((d, "rotated by its position in the head"),))
    for cache in caches:  # [2, batch, heads, positions, width]
        if cache is not None:
            rule += whole("keys and values", cache[:1]) + cached(cache[1:], x[0], h, d)
    rule += same(x[0], y[0]) + _padding(node.optional_input(3), x[0])
    rule += scores_like(node.optional_input(5), x[0], h, x[1], "Attention runs a Softmax along it")
    return rule + scored(node, (0, 0, 0), x[0], (h,), (x[1], x[1]), (d, e))


def _padding(mask: Axes | None, batch: Ref) -> AxisRule:
    """A mask of keys in one of the spellings of com.microsoft: `[batch, keys]`, `[batch, queries, keys]`, lengths."""
    if not mask:
        return AxisRule()
    aligned = mask[0].size == batch.size
    rule = same(batch, mask[0]) if aligned else whole("a mask of several lengths a row", (batch, mask[0]))
    return rule + whole("a mask of positions", mask[1:])


@axis_rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head(node: NodeView) -> AxisRule:
    """com.microsoft: Q, K, V apart, K and V packed `[…, h, 2, d]`, or all packed `[…, h, 3, d]`; bias `q | k | v`."""
    q, k, v, y = node.input(0), node.optional_input(1), node.optional_input(2), node.output()
    count = number(node, "num_heads")
    h = node.fresh((count,) * node.probes, "h")
    d = node.fresh(q[4].size if len(q) == 5 else over(node, q[2].size, count), "d")
    e = node.fresh(over(node, y[2].size, count), "v")
    rule = AxisRule(
        equal=((y[2], Prod((h, e))),),
        rewrites=(SizeSite("num_heads", None, h),),
        reduces=(Reduce(q[-1], Reduction.SUM),),
    )
    rule += same(q[0], y[0]) + same(q[1], y[1])
    keys, operands = q[1], (0, 0, 0)
    for axes in (q, k):
        if axes is not None and len(axes) == 5:
            rule += AxisRule(equal=((axes[2], h), (axes[4], d), (d, e))) + whole("queries, keys and values", axes[3:4])
    if len(q) == 3:
        rule += layout(q, (h,), d).rule
    if k is not None and len(k) == 5:
        rule, keys, operands = rule + same(q[0], k[0]), k[1], (0, 1, 1)
    elif k is not None and v is not None:
        of_k, of_v = layout(k, (h,), d), layout(v, (h,), e)
        rule += of_k.rule + of_v.rule + same(q[0], of_k.batch, of_v.batch)
        rule += whole("MultiHeadAttention runs a Softmax along it", (of_v.positions,))
        keys, operands = of_k.positions, (0, 1, 2)
    if bias := node.optional_input(3):
        parts = Sum((Prod((h, d)), Prod((h, d)), Prod((h, e))))
        rule += AxisRule(equal=((bias[0], parts),), reduces=(Reduce(bias[0], Reduction.SUM, inside=True),))
    if (k is not None and len(k) == 4) or node.optional_input(6) is not None:
        rule += AxisRule(equal=((d, e),))  # ONNX Runtime asks for it
    for index, width in ((6, d), (7, e)):
        rule += cached(node.optional_input(index), q[0], h, width) + cached(
            node.optional_output(index - 5), q[0], h, width
        )
    for scores in (node.optional_input(5), node.optional_output(3)):
        rule += scores_like(scores, q[0], h, q[1], "MultiHeadAttention runs a Softmax along it")
    rule += _padding(node.optional_input(4), q[0]) + whole("beams", node.optional_input(9))
    return rule + scored(node, operands, q[0], (h,), (q[1], keys), (d, e))
