"""Rotary positions, and the attention that has them built in: slots rotate in pairs, so they stay or go in pairs."""

from __future__ import annotations

from prunegraph.analysis.axes import Axes, Expr, Prod, Size, Sum
from prunegraph.analysis.ops import Lookup
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, NodeView, Reduce, Reduction, SizeSite
from prunegraph.analysis.rules.attention import (
    cached,
    layout,
    number,
    over,
    same,
    scored,
    scores_like,
    whole,
)
from prunegraph.analysis.rules.elementwise import MICROSOFT

HEAD_SIZE_STEP = 8
"""GroupQueryAttention of ONNX Runtime takes head sizes in steps of 8, and of 8 pairs where it rotates."""


def rotated(node: NodeView, width: Size, half: Expr, turning: Size, interleaved: bool) -> tuple[Expr, Expr]:
    """The width of a head as `2·pairs + rest` (or `pairs·2`), and the part of it that turns."""
    two = node.fresh((2,) * node.probes, "2", "pairs rotate into each other")
    pairs = Prod((half, two) if interleaved else (two, half))
    rest = tuple(n - m for n, m in zip(width, turning, strict=True))
    if min(rest) < 0:
        raise CannotAnalyze("more is rotated than there is")
    return Sum((pairs, node.fresh(rest, "rest"))), pairs


def _tables(node: NodeView, cos: int, half: Expr, positions: tuple[Axes, ...]) -> AxisRule:
    """Cosines and sines `[…, pairs]`, by position in a table or in the batch."""
    rule = AxisRule()
    for table in (node.input(cos), node.input(cos + 1)):
        rule += AxisRule(equal=((table[-1], half),))
        if len(table) == 2:
            rule += whole("a table of positions", table[:1])
        else:
            rule += same(positions[0][0], table[0]) + same(positions[1][0], table[1])
    return rule


def _embedding(node: NodeView, cos: int, ids: int) -> AxisRule:
    x, y = node.input(0), node.output()
    half = node.fresh(node.input(cos)[-1].size, "pairs")
    turning = tuple(2 * n for n in half.size)
    stated = number(node, "num_heads")
    width = x[3].size if len(x) == 4 else over(node, x[2].size, stated) if stated else turning
    h = node.fresh(x[1].size if len(x) == 4 else over(node, x[2].size, width[0]), "h")
    d, turned = rotated(node, width, half, turning, bool(node.attr("interleaved")))
    of_x, of_y = layout(x, (h,), d), layout(y, (h,), d)
    rule = of_x.rule + of_y.rule + same(of_x.batch, of_y.batch) + same(of_x.positions, of_y.positions)
    rule += _tables(node, cos, half, ((of_x.batch,), (of_x.positions,)))
    if (where := node.optional_input(ids)) and len(where) == 2:
        rule += same(of_x.batch, where[0]) + same(of_x.positions, where[1])
    elif len(node.input(cos)) == 2:
        rule += whole("rotated by its position", (of_x.positions,), where)
    sizes = [SizeSite("num_heads", None, h)] if stated else []
    sizes += [SizeSite("rotary_embedding_dim", None, turned)] if number(node, "rotary_embedding_dim") else []
    return rule + AxisRule(rewrites=tuple(sizes))


@axis_rule("RotaryEmbedding", looks_up=(Lookup(by=3, table=1, rows=False),))
def rotary_embedding(node: NodeView) -> AxisRule:
    """ai.onnx: data, cosines, sines, positions."""
    return _embedding(node, cos=1, ids=3)


@axis_rule("RotaryEmbedding", domain=MICROSOFT, looks_up=(Lookup(by=1, table=2, rows=False),))
def rotary_embedding_microsoft(node: NodeView) -> AxisRule:
    """com.microsoft: data, positions, cosines, sines."""
    if node.attr("is_packed_batching"):
        raise CannotAnalyze("packed batching")
    return _embedding(node, cos=2, ids=1)


@axis_rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(node: NodeView) -> AxisRule:
    """com.microsoft: query heads `g·r` over `g` heads of keys and values, all of one width; Q, K, V may be packed."""
    q, k, v, y = node.input(0), node.optional_input(1), node.optional_input(2), node.output()
    if node.optional_input(12) is not None or node.optional_input(13) is not None:
        raise CannotAnalyze("a quantized cache")
    q_heads, kv_heads = number(node, "num_heads"), number(node, "kv_num_heads")
    size = over(node, q[2].size, q_heads + (0 if k else 2 * kv_heads))
    g, r = node.fresh((kv_heads,) * node.probes, "g"), node.fresh(over(node, (q_heads,) * node.probes, kv_heads), "r")
    d, rule = _head_size(node, size)
    heads = node.fresh((q_heads,) * node.probes, "h")
    rule += AxisRule(
        equal=((y[2], Prod((g, r, d))), (heads, Prod((g, r)))),
        copies=(r,),
        reduces=(Reduce(q[2], Reduction.SUM),),
        rewrites=(SizeSite("num_heads", None, Prod((g, r))), SizeSite("kv_num_heads", None, g)),
    )
    keys, operands = q[1], (0, 0, 0)
    if k is not None and v is not None:
        of_k, of_v = layout(k, (g,), d), layout(v, (g,), d)
        rule += layout(q, (g, r), d).rule + of_k.rule + of_v.rule + same(q[0], k[0], v[0])
        rule += whole("GroupQueryAttention runs a Softmax along it", v[1:2])
        keys, operands = k[1], (0, 1, 2)
    else:
        rule += AxisRule(equal=((q[2], Sum((Prod((g, r, d)), Prod((g, d)), Prod((g, d))))),))
    rule += same(q[0], y[0]) + same(q[1], y[1])
    for cache in (node.optional_input(3), node.optional_input(4), node.optional_output(1), node.optional_output(2)):
        rule += cached(cache, q[0], g, d)
    for scores in (node.optional_input(10), node.optional_output(3)):
        rule += scores_like(scores, q[0], heads, q[1], "GroupQueryAttention runs a Softmax along it")
    if lengths := node.optional_input(5):
        rule += same(q[0], lengths[0])
    if sink := node.optional_input(11):
        rule += AxisRule(equal=((sink[0], heads),))
    for norm in (node.optional_input(14), node.optional_input(15)):
        if norm:
            rule += AxisRule(equal=((norm[0], d),), pins=((d, "statistics over a head"),))
    return rule + scored(node, operands, q[0], (g, r), (q[1], keys), (d, d))


def _head_size(node: NodeView, size: Size) -> tuple[Expr, AxisRule]:
    """The width of a head in steps that ONNX Runtime takes; its pairs are those of the tables."""
    if not number(node, "do_rotary"):
        return _in_steps(node, size), AxisRule()
    cos = node.input(7)
    half = node.fresh(cos[1].size, "pairs")
    turning = tuple(2 * n for n in half.size)
    d, _ = rotated(node, size, half, turning, bool(node.attr("rotary_interleaved")))
    rule = AxisRule(equal=((half, _in_steps(node, half.size)),)) + _tables(node, 7, half, ((), ()))
    if turning != size:
        rule += AxisRule(pins=((d, "GroupQueryAttention rotates a part of it"),))
    return d, rule


def _in_steps(node: NodeView, size: Size) -> Expr:
    why = f"GroupQueryAttention takes head sizes in steps of {HEAD_SIZE_STEP}"
    if any(n % HEAD_SIZE_STEP for n in size):
        return node.fresh(size, "d", why)
    steps = node.fresh(tuple(n // HEAD_SIZE_STEP for n in size), "steps")
    return Prod((steps, node.fresh((HEAD_SIZE_STEP,) * node.probes, "step", why)))
