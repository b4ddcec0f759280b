"""Ops that move slots about without changing them: one row-major product regrouped, axes permuted, repeated."""

from __future__ import annotations

from prunegraph.analysis.axes import Expr, Prod, Ref, Size
from prunegraph.analysis.ops import FIRST
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView, SizeSite


def regroup(x: tuple[Ref, ...], y: tuple[Ref, ...]) -> AxisRule:
    """Cut a reshape into its smallest blocks of equal product.

    Row-major order makes this exact: wherever the products of leading extents agree, what follows is a reshape of its
    own.
    """
    equal: list[tuple[Expr, Expr]] = []
    left = [ref for ref in x if any(n != 1 for n in ref.size)]
    right = [ref for ref in y if any(n != 1 for n in ref.size)]
    while left and right:
        block_x, block_y = [left.pop(0)], [right.pop(0)]
        size_x, size_y = block_x[0].size, block_y[0].size
        while size_x != size_y:
            grow_x = left and (not right or any(a < b for a, b in zip(size_x, size_y, strict=True)))
            if grow_x:
                block_x.append(left.pop(0))
                size_x = _times(size_x, block_x[-1].size)
            elif right:
                block_y.append(right.pop(0))
                size_y = _times(size_y, block_y[-1].size)
            else:
                break
        equal.append((_product(block_x), _product(block_y)))
    rest = [(ref, "a reshape whose lengths do not multiply up") for ref in (*left, *right)]
    return AxisRule(equal=tuple(equal), pins=tuple(rest))


def _times(a: Size, b: Size) -> Size:
    return tuple(p * q for p, q in zip(a, b, strict=True))


def _product(block: list[Ref]) -> Expr:
    return block[0] if len(block) == 1 else Prod(tuple(block))


@axis_rule("Reshape", carries=FIRST, moves=True, reshapes=True, lengths_from=(1,))
def reshape(node: NodeView) -> AxisRule:
    """One product regrouped; the target states every length of the output."""
    y = node.output()
    return regroup(node.input(0), y) + AxisRule(rewrites=tuple(SizeSite(1, k, ref) for k, ref in enumerate(y)))


@axis_rule("Flatten", "Squeeze", "Unsqueeze", carries=FIRST, moves=True, reshapes=True)
def flatten(node: NodeView) -> AxisRule:
    """One product regrouped, with no length stated."""
    return regroup(node.input(0), node.output())


@axis_rule("Transpose", carries=FIRST, moves=True, permutes=True)
def transpose(node: NodeView) -> AxisRule:
    """Transpose: the axes of the input in another order."""
    x, y = node.input(0), node.output()
    order = node.attr("perm") or range(len(x))[::-1]
    return AxisRule(equal=tuple((x[k], y[position]) for position, k in enumerate(order)))


@axis_rule("Expand", carries=FIRST, moves=True, lengths_from=(1,))
def expand(node: NodeView) -> AxisRule:
    """Broadcast to stated lengths; an axis that was of length one becomes copies."""
    x, y = node.input(0), node.output()
    padded = (None,) * (len(y) - len(x)) + x
    kept = [(a, b) for a, b in zip(padded, y, strict=True) if a is not None and a.size == b.size]
    copies = tuple(b for a, b in zip(padded, y, strict=True) if a is None or a.size != b.size)
    target = node.static(1)
    offset = 0 if target is None else len(y) - target.size
    sizes = tuple(SizeSite(1, k - offset, ref) for k, ref in enumerate(y) if k >= offset)
    return AxisRule(equal=tuple(kept), rewrites=sizes, copies=copies)


@axis_rule("Tile", carries=FIRST, moves=True, lengths_from=(1,))
def tile(node: NodeView) -> AxisRule:
    """`y = r·x` along every axis, r repeats."""
    x, y = node.input(0), node.output()
    rule = AxisRule()
    for k, (a, b) in enumerate(zip(x, y, strict=True)):
        if a.size == b.size:
            rule += AxisRule(equal=((a, b),))
        elif node.one(a):
            rule += AxisRule(copies=(b,), rewrites=(SizeSite(1, k, b),))
        else:
            r = node.fresh(tuple(n // m for n, m in zip(b.size, a.size, strict=True)), "r")
            rule += AxisRule(equal=((b, Prod((r, a))),), rewrites=(SizeSite(1, k, r),))
    return rule
