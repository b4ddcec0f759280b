"""Weights quantized in blocks: a scale for every few neighbouring slots of an axis, so that whole blocks stay or go."""

from __future__ import annotations

from prunegraph.analysis.axes import Axes, Expr, Fresh, Prod, Ref
from prunegraph.analysis.ops import EVERY, Lookup
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, Contraction, NodeView, Reduce, Reduction, SizeSite
from prunegraph.analysis.rules.elementwise import MICROSOFT


def _whole(node: NodeView, count: int) -> Fresh:
    return node.fresh((count,) * node.probes, "block", "quantized in blocks")


def _whole_axes(why: str, *axes: Expr) -> AxisRule:
    return AxisRule(pins=tuple((axis, why) for axis in axes))


def _zero_points(node: NodeView, axes: Axes, outer: Ref, blocks: Fresh, bits: int) -> AxisRule:
    """Zero points `outer·blocks`, on one axis or on two: one number a slot, or several in a byte."""
    row = axes[1].size[0] if len(axes) > 1 else axes[0].size[0] // outer.size[0]
    several = 8 // bits
    if row == blocks.size[0]:
        inner, rule = blocks, AxisRule()
    elif row * several == blocks.size[0]:
        inner = node.fresh((row,) * node.probes, "bytes")
        rule = AxisRule(equal=((blocks, Prod((inner, _whole(node, several)))),))
    else:
        why = "zero points that end inside a byte"
        inner, rule = node.fresh((row,) * node.probes, "bytes", why), _whole_axes(why, blocks)
    return rule + AxisRule(equal=_rows(axes, outer, inner))


def _rows(axes: Axes, outer: Ref, inner: Expr) -> tuple[tuple[Expr, Expr], ...]:
    return ((axes[0], outer), (axes[1], inner)) if len(axes) > 1 else ((axes[0], Prod((outer, inner))),)


@axis_rule("MatMulNBits", domain=MICROSOFT, fixed=EVERY, linear=True)
def matmul_nbits(node: NodeView) -> AxisRule:
    """`[…, K] · [N, blocks, bytes]`: columns go one by one, rows in whole blocks."""
    x, w, y, scales = node.input(0), node.input(1), node.output(), node.input(2)
    block, bits = int(node.attr("block_size")), int(node.attr("bits", 4))
    n, k = w[0], x[-1]
    blocks = node.fresh(w[1].size, "blocks")
    rule = AxisRule(
        equal=((w[1], blocks), (y[-1], n), *zip(x[:-1], y[:-1], strict=True)),
        pins=((w[2], "bytes of a block"),),
        reduces=(Reduce(k, Reduction.SUM),),
        rewrites=(SizeSite("N", None, n), SizeSite("K", None, k)),
        contractions=(Contraction((0, 1), (), (k, w[1]), x[:-1], (n,), (*y, k)),),
    )
    if blocks.size[0] * block == k.size[0]:
        rule += AxisRule(equal=((k, Prod((blocks, _whole(node, block)))),))
    else:
        rule += _whole_axes("its last block is not full", k, blocks)
    rule += AxisRule(equal=_rows(scales, n, blocks))
    if points := node.optional_input(3):
        rule += _zero_points(node, points, n, blocks, bits)
    if order := node.optional_input(4):
        rule += _whole_axes("its slots are in an order of their own", k, blocks, *order)
    if bias := node.optional_input(5):
        rule += AxisRule(equal=((bias[0], n),))
    return rule


@axis_rule("GatherBlockQuantized", domain=MICROSOFT, looks_up=(Lookup(by=1),), fixed=EVERY)
def gather_block_quantized(node: NodeView) -> AxisRule:
    """Rows of a quantized table, looked up; columns go in whole blocks."""
    data, indices, scales, y = node.input(0), node.input(1), node.input(2), node.output()
    if node.attr("gather_axis", 0) != 0 or node.attr("quantize_axis", 1) % len(data) != 1 or len(data) != 2:
        raise CannotAnalyze("a table that is not looked up by rows")
    block, bits, columns = int(node.attr("block_size", 128)), int(node.attr("bits", 4)), y[-1]
    blocks = node.fresh(scales[1].size, "blocks")
    if blocks.size[0] * block != columns.size[0]:
        raise CannotAnalyze("its last block is not full")
    packed = 1 if data[1].size == columns.size else 8 // bits
    rule = AxisRule(
        equal=(
            (columns, Prod((blocks, _whole(node, block)))),
            (data[1], Prod((blocks, _whole(node, block // packed)))),
            (scales[1], blocks),
            (scales[0], data[0]),
            *zip(indices, y[:-1], strict=True),
        ),
        pins=((data[0], "looked up by position"),),
    )
    return rule + (
        _zero_points(node, points, data[0], blocks, bits) if (points := node.optional_input(3)) else AxisRule()
    )
