"""Ops that put axes together or take parts out of them: all of them sums."""

from __future__ import annotations

import numpy as np

from prunegraph.analysis.axes import Expr, Fresh, Prod, Ref, Sum
from prunegraph.analysis.ops import EVERY, FIRST, Lookup
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, IntArray, NodeView, SizeSite
from prunegraph.analysis.rules.shape import regroup


def _others(x: tuple[Ref, ...], y: tuple[Ref, ...], *axes: int) -> tuple[tuple[Expr, Expr], ...]:
    return tuple((a, b) for k, (a, b) in enumerate(zip(x, y, strict=True)) if k not in axes)


def pinned(*operands: tuple[Ref, ...] | None, why: str) -> AxisRule:
    """Every axis of the operands stays whole."""
    return AxisRule(pins=tuple((ref, why) for axes in operands if axes for ref in axes))


@axis_rule("Concat", carries=EVERY, moves=True)
def concat(node: NodeView) -> AxisRule:
    """`y = x0 + x1 + …` along one axis."""
    y = node.output()
    axis = node.attr("axis") % len(y)
    parts = [x for x in node.inputs if x is not None]
    equal = tuple(pair for x in parts for pair in _others(x, y, axis))
    return AxisRule(equal=((y[axis], Sum(tuple(x[axis] for x in parts))), *equal))


@axis_rule("Split", carries=FIRST, moves=True, lengths_from=(1,))
def split(node: NodeView) -> AxisRule:
    """`x = y0 + y1 + …` along one axis; the lengths of the parts are stated, or must be once they differ."""
    x = node.input(0)
    axis = node.attr("axis", 0) % len(x)
    parts = [y for y in node.outputs if y is not None]
    equal = tuple(pair for y in parts for pair in _others(x, y, axis))
    place: int | str = "split" if node.version < 13 else 1
    sizes = tuple(SizeSite(place, k, y[axis]) for k, y in enumerate(parts))
    return AxisRule(equal=((x[axis], Sum(tuple(y[axis] for y in parts))), *equal), rewrites=sizes)


@axis_rule("Slice", carries=FIRST, moves=True, lengths_from=(1, 2, 3, 4))
def slice_(node: NodeView) -> AxisRule:
    """`x = before + y + after` along each sliced axis; a longer step takes one slot of every `step`."""
    x, y = node.input(0), node.output()
    old = node.version < 10
    starts, ends = node.ints("starts", None if old else 1), node.ints("ends", None if old else 2)
    axes = node.ints("axes", None if old else 3)
    if axes is None:
        axes = list(range(len(starts or ends or x)))
    steps = node.ints("steps", None if old else 4) or [1] * len(axes)
    places: tuple[int | str, int | str] = ("starts", "ends") if old else (1, 2)
    rule = AxisRule(equal=_others(x, y, *(k % len(x) for k in axes)))
    for entry, (k, step) in enumerate(zip(axes, steps, strict=True)):
        a, b = x[k % len(x)], y[k % len(x)]
        if a.size == b.size and step > 0:
            # Everything is taken; an `end` that states the length need not be exact, it only must not fall short.
            rule += AxisRule(equal=((a, b),))
        elif starts is None or ends is None or len(set(a.size)) > 1:
            rule += pinned((a, b), why="sliced at computed positions")
        else:
            rule += _slice_axis(node, a, b, (starts[entry], ends[entry], step), entry, places)
    return rule


def _slice_axis(
    node: NodeView, a: Ref, b: Ref, along: tuple[int, int, int], entry: int, places: tuple[int | str, int | str]
) -> AxisRule:
    start, end, step = along
    length = a.size[0]
    begin = slice(start, None, step).indices(length)[0]
    if step == 1:
        before = node.fresh((begin,) * node.probes, "before")
        after = node.fresh(tuple(n - begin - m for n, m in zip(a.size, b.size, strict=True)), "after")
        first = (
            SizeSite(places[0], entry, Sum((b, after)), -1) if start < 0 < begin else SizeSite(places[0], entry, before)
        )
        last = SizeSite(places[1], entry, after, -1) if end < 0 else SizeSite(places[1], entry, Sum((before, b)))
        return AxisRule(equal=((a, Sum((before, b, after))),), rewrites=(first, last))
    if step > 1 and length % step == 0 and begin < step and b.size[0] == length // step and (start >= 0 or begin == 0):
        lanes = (_lane(node, begin), _lane(node, 1), _lane(node, step - begin - 1))
        return AxisRule(equal=((a, Prod((b, Sum(lanes)))),))
    return pinned((a, b), why=f"sliced with step {step}")


def _lane(node: NodeView, count: int) -> Fresh:
    return node.fresh((count,) * node.probes, "lane", "a lane of an interleaved axis")


TUPLES = Lookup(by=1, attribute="batch_dims", tuples=True, ranked=True)


@axis_rule("Gather", carries=FIRST, moves=True, looks_up=(Lookup(by=1, attribute="axis", ranked=True),))
def gather(node: NodeView) -> AxisRule:
    """`y = x[:axis] ++ indices ++ x[axis+1:]`; a constant index takes one slot, a computed one pins the axis."""
    x, y = node.input(0), node.output()
    axis = node.attr("axis", 0) % len(x)
    indices = node.optional_input(1) or ()
    middle = y[axis : axis + len(indices)]
    rule = AxisRule(
        equal=(*zip(x[:axis], y[:axis], strict=True), *zip(x[axis + 1 :], y[axis + len(indices) :], strict=True))
    )
    known = node.static(1)
    if known is not None and known.size == 1 and len(set(x[axis].size)) == 1:
        return rule + _one_slot(node, x[axis], known)
    if (
        known is not None
        and np.array_equal(known.reshape(-1), np.arange(x[axis].size[0]))
        and len(set(x[axis].size)) == 1
    ):
        return rule + regroup((x[axis],), middle) + pinned(indices, (x[axis],), why="gathered by a table of positions")
    rule += AxisRule(equal=tuple(zip(indices, middle, strict=True)))
    if node.positions is not None:
        return rule + AxisRule(equal=((x[axis], node.positions),))
    return rule + pinned((x[axis],), why="gathered by position")


def _one_slot(node: NodeView, ref: Ref, index: IntArray) -> AxisRule:
    """`x = before + 1 + after`, and the index states the length of `before`, or counts from the end."""
    length, stated = ref.size[0], int(index.reshape(-1)[0])
    at = stated % length
    before, one, after = (node.fresh((n,) * node.probes) for n in (at, 1, length - at - 1))
    entry = 0 if index.ndim else None
    site = SizeSite(1, entry, Sum((one, after)), -1) if stated < 0 else SizeSite(1, entry, before)
    return AxisRule(equal=((ref, Sum((before, one, after))),), rewrites=(site,))


@axis_rule("GatherElements", carries=FIRST, looks_up=(Lookup(by=1, attribute="axis", rows=False, ranked=True),))
def gather_elements(node: NodeView) -> AxisRule:
    """A computed index pins the axis; the others are the indices' own where lengths agree, pinned where they do not."""
    x, indices, y = node.input(0), node.input(1), node.output()
    axis = node.attr("axis", 0) % len(x)
    rule = AxisRule(equal=tuple(zip(indices, y, strict=True)))
    for k, (a, b) in enumerate(zip(x, indices, strict=True)):
        if k == axis and node.positions is not None:
            rule += AxisRule(equal=((a, node.positions),)) + pinned((b,), why="gathered by position")
        else:
            same = k != axis and a.size == b.size
            rule += AxisRule(equal=((a, b),)) if same else pinned((a, b), why="gathered by position")
    return rule


@axis_rule("GatherND", carries=FIRST, moves=True, looks_up=(TUPLES,))
def gather_nd(node: NodeView) -> AxisRule:
    """Indexed axes are pinned, unless one constant slot is taken of one; what follows them passes through."""
    x, indices, y = node.input(0), node.input(1), node.output()
    batch = node.attr("batch_dims", 0)
    depth = indices[-1].size[0]
    lead = len(indices) - 1
    tail = x[batch + depth :]
    equal = (*zip(indices[:lead], y[:lead], strict=True), *zip(tail, y[lead:], strict=True))
    rule = AxisRule(equal=(*equal, *zip(x[:batch], y[:batch], strict=True)))
    known = node.static(1)
    if known is not None and known.size == 1 and depth == 1 and len(set(x[batch].size)) == 1:
        return rule + _one_slot(node, x[batch], known)
    if node.positions is not None:
        return rule + AxisRule(equal=((x[0], node.positions),)) + pinned((indices[-1],), why="gathered by position")
    return rule + pinned(x[batch : batch + depth], (indices[-1],), why="gathered by position")


@axis_rule("ScatterElements")
def scatter_elements(node: NodeView) -> AxisRule:
    """The axis that is written by position is pinned; along the others every slot is written where it stands."""
    x, indices, updates, y = node.input(0), node.input(1), node.input(2), node.output()
    axis = node.attr("axis", 0) % len(x)
    rule = AxisRule(equal=(*zip(x, y, strict=True), *zip(indices, updates, strict=True)))
    for k, (a, b) in enumerate(zip(x, indices, strict=True)):
        beside = k != axis and a.size == b.size
        rule += AxisRule(equal=((a, b),)) if beside else pinned((a, b), why="scattered by position")
    return rule


@axis_rule("ScatterND")
def scatter_nd(node: NodeView) -> AxisRule:
    """The data's axes pass through; those written by position are pinned."""
    x, indices, updates, y = node.input(0), node.input(1), node.input(2), node.output()
    same = AxisRule(equal=tuple(zip(x, y, strict=True)))
    depth, lead = indices[-1].size[0], len(indices) - 1
    window = AxisRule(equal=tuple(zip(x[depth:], updates[lead:], strict=True)))
    rows = AxisRule(equal=tuple(zip(indices[:lead], updates[:lead], strict=True)))
    return same + window + rows + pinned(x[:depth], indices, why="scattered by position")


@axis_rule("Pad", lengths_from=(1, 3))
def pad(node: NodeView) -> AxisRule:
    """`y = before + x + after`; fewer slots are added where what reads them gets smaller."""
    x, y = node.input(0), node.output()
    amounts = node.ints("pads", None if node.version < 11 else 1)
    axes = node.ints("axes", 3) if node.version >= 18 else None
    where = [k % len(x) for k in axes] if axes is not None else list(range(len(x)))
    rule = AxisRule(equal=tuple((a, b) for a, b in zip(x, y, strict=True) if a.size == b.size))
    for position, k in enumerate(where):
        if x[k].size == y[k].size:
            continue
        if amounts is None or node.attr("mode", "constant") != "constant" or min(amounts) < 0:
            rule += pinned((x[k], y[k]), why="padded")
            continue
        place: int | str = "pads" if node.version < 11 else 1
        parts: list[Expr] = [x[k]]
        for entry in (position, position + len(where)):
            if amount := amounts[entry]:
                added = node.fresh((amount,) * node.probes, "pad")
                parts = [added, *parts] if entry == position else [*parts, added]
                rule += AxisRule(rewrites=(SizeSite(place, entry, added),))
        rule += AxisRule(equal=((y[k], Sum(tuple(parts))),))
    return rule


@axis_rule("OneHot", lengths_from=(1,))
def one_hot(node: NodeView) -> AxisRule:
    """The indices' axes pass through around the new one, which is pinned."""
    indices, y = node.input(0), node.output()
    axis = node.attr("axis", -1) % len(y)
    rest = y[:axis] + y[axis + 1 :]
    return AxisRule(equal=tuple(zip(indices, rest, strict=True)), pins=((y[axis], "OneHot counts along it"),))
