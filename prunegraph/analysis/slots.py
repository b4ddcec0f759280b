"""Lengths and slots of axes: how long an axis becomes, and which of its positions stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.analysis.axes import Axis, Size, size_product
from prunegraph.arrays import Index, Mask


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays of one Dim: `mask[..., slot]`, its leading axes running over the slots of the `outer` Dims.

    Every row keeps the same number of slots; a row whose outer slot is removed itself does not count.
    """

    outer: tuple[int, ...]
    mask: Mask
    count: int


Keeps = Mapping[int, Keep]
SizeOf = Callable[[int], Size]


def axis_size(axis: Axis, size_of: SizeOf, probes: int) -> Size:
    """The length of an axis, one number per probe, when a Dim is as long as `size_of` says."""

    def factor_size(factor: int | Axis) -> Size:
        return size_of(factor) if isinstance(factor, int) else axis_size(factor, size_of, probes)

    totals = [size_product([factor_size(f) for f in term], probes) for term in axis.terms]
    return tuple(sum(column) for column in zip(*totals, strict=True)) if totals else (0,) * probes


Slots = list[tuple[int, Index]]
"""(Dim, slot at every position or -1 where the position does not belong to it); a Dim appears once an occurrence."""


def slots(axis: Axis, size_of: SizeOf, chosen: Callable[[int], bool]) -> Slots:
    """Which slot of which wanted Dim every position of a (static) axis belongs to."""
    return _slots(axis, lambda dim: size_of(dim)[0], chosen)[1]


def _slots(axis: Axis, length: Callable[[int], int], chosen: Callable[[int], bool]) -> tuple[int, Slots]:
    parts = [_term_slots(term, length, chosen) for term in axis.terms]
    total = sum(n for n, _ in parts)
    merged: dict[tuple[int, int], Index] = {}
    start = 0
    for n, table in parts:
        occurrences: dict[int, int] = {}
        for dim, where in table:
            occurrence = occurrences[dim] = occurrences.get(dim, -1) + 1
            column = merged.setdefault((dim, occurrence), np.full(total, -1, dtype=np.int64))
            column[start : start + n] = where
        start += n
    return total, [(dim, column) for (dim, _), column in merged.items()]


def _term_slots(
    term: Sequence[int | Axis], length: Callable[[int], int], chosen: Callable[[int], bool]
) -> tuple[int, Slots]:
    factors: list[tuple[int, Slots]] = []
    for factor in term:
        if isinstance(factor, int):
            n = length(factor)
            factors.append((n, [(factor, np.arange(n))] if chosen(factor) else []))
        else:
            factors.append(_slots(factor, length, chosen))
    total = int(np.prod([n for n, _ in factors], dtype=np.int64))
    table: Slots = []
    inner = total
    for n, own in factors:
        inner //= max(n, 1)  # nothing stands along an empty axis
        if own:
            position = np.arange(total) // inner % n
            table += [(dim, where[position]) for dim, where in own]
    return total, table


def kept_positions(axes: Sequence[Axis], keeps: Keeps, size_of: SizeOf) -> list[Mask | None]:
    """For every axis of a tensor a mask of the positions that stay, None where all stay.

    A mask is one-dimensional, or, where a choice depends on the slot of another axis, broadcastable to the whole
    tensor (its own axis in its place, the axes it depends on at full length, all others of length one).
    """
    involved = set(keeps) | {dim for keep in keeps.values() for dim in keep.outer}
    tables: list[Slots] = [
        slots(axis, size_of, involved.__contains__) if any(dim in involved for dim in axis.dims()) else []
        for axis in axes
    ]
    return [_axis_mask(k, tables, len(axes), keeps) for k in range(len(axes))]


def _axis_mask(k: int, tables: list[Slots], rank: int, keeps: Keeps) -> Mask | None:
    masks = []
    for dim, where in tables[k]:
        if dim in keeps:
            index, free = unit_index(k, where, keeps[dim].outer, tables, rank)
            masks.append(np.asarray(keeps[dim].mask[index] | free))
    if not masks:
        return None
    if all(mask.ndim == 1 for mask in masks):
        return np.asarray(np.logical_and.reduce(masks))
    shape = tuple(-1 if axis == k else 1 for axis in range(rank))
    total = np.array(True)
    for mask in masks:
        total = total & (mask.reshape(shape) if mask.ndim == 1 else mask)
    return np.asarray(total)


def unit_index(
    k: int, where: Index, outer: Sequence[int], tables: list[Slots], rank: int
) -> tuple[tuple[Index, ...], Mask]:
    """Which unit every position of axis `k` belongs to: an index into the group's shape, and what belongs to none.

    Both are one-dimensional where the outer Dims lie on the same axis, else they broadcast against the whole tensor.
    """
    outers = [_outer(k, dim, where, tables) for dim in outer]
    if all(axis == k for axis, _ in outers):
        return (*(column for _, column in outers), where), where < 0

    def placed(axis: int, column: Index) -> Index:
        return column.reshape(tuple(-1 if a == axis else 1 for a in range(rank)))

    return (*(placed(axis, column) for axis, column in outers), placed(k, where)), placed(k, where) < 0


def _outer(k: int, outer: int, where: Index, tables: list[Slots]) -> tuple[int, Index]:
    """The axis that holds an outer Dim, the same one if it is there, and its slot at every position."""
    for dim, column in tables[k]:
        if dim == outer and np.all((column >= 0) | (where < 0)):
            return k, column
    for axis, table in enumerate(tables):
        for dim, column in table:
            if dim == outer and axis != k:
                return axis, column
    raise AssertionError("a ragged choice has lost its outer axis")


def unit_sums(
    total: Callable[[tuple[int, ...]], npt.NDArray[np.float64]],
    axes: Sequence[Axis],
    dim: int,
    outer: Sequence[int],
    size_of: SizeOf,
) -> npt.NDArray[np.float64]:
    """Sum the entries of a tensor by the unit they belong to.

    Args:
        total: Sums the tensor over all its axes but those named, which stay in order.
        axes: The tensor's axes.
        dim: The Dim whose slots are the units.
        outer: The Dims over whose slots they are chosen.
        size_of: The length of a Dim.

    Returns:
        An array of the group's shape `(*rows, units)`.
    """
    tables = [slots(axis, size_of, {dim, *outer}.__contains__) for axis in axes]
    sums = np.zeros([size_of(d)[0] for d in (*outer, dim)])
    for k, table in enumerate(tables):
        for leaf, where in table:
            if leaf != dim:
                continue
            index, free = unit_index(k, where, outer, tables, len(axes))
            if where.ndim == index[-1].ndim:
                np.add.at(sums, tuple(column[~free] for column in index), total((k,))[~free])
            else:
                columns = np.broadcast_arrays(*index)
                kept = tuple(a for a in range(len(axes)) if columns[0].shape[a] != 1)
                shape = tuple(columns[0].shape[a] for a in kept)
                valid = ~np.broadcast_to(free, columns[0].shape).reshape(shape)
                np.add.at(sums, tuple(column.reshape(shape)[valid] for column in columns), total(kept)[valid])
    return sums


def compress(array: npt.NDArray[Any], masks: Sequence[Mask | None]) -> npt.NDArray[Any]:
    """Take the positions that stay, axis by axis; may be a view of the array."""
    ragged: dict[int, Mask] = {}
    for k, mask in enumerate(masks):
        if mask is not None and mask.ndim > 1:
            ragged[k] = mask
    for k, mask in enumerate(masks):
        if mask is not None and mask.ndim == 1:
            array = _compress(array, mask, k)
            # Rows of outer slots that go away themselves do not count.
            ragged = {r: np.compress(mask, m, axis=k) if m.shape[k] > 1 else m for r, m in ragged.items()}
    while ragged:
        k = next(r for r, m in ragged.items() if all(m.shape[other] == 1 for other in ragged if other != r))
        mask = ragged.pop(k)
        counts = np.unique(mask.sum(axis=k))
        assert counts.size == 1, "a ragged choice keeps unequal numbers"
        order = np.argsort(~mask, axis=k, kind="stable").take(range(counts[0]), axis=k)
        array = _take(array, order, k)
        ragged = {r: _take(m, order, k) if m.shape[k] > 1 else m for r, m in ragged.items()}
    return array


def _compress(array: npt.NDArray[Any], mask: Mask, axis: int) -> npt.NDArray[Any]:
    """`np.compress`, but a view where what stays is one run of neighbours."""
    kept = np.flatnonzero(mask)
    if kept.size and kept[-1] - kept[0] + 1 == kept.size:
        return array[(slice(None),) * axis + (slice(kept[0], kept[-1] + 1),)]
    return np.take(array, kept, axis=axis)


def _take(array: npt.NDArray[Any], order: Index, axis: int) -> npt.NDArray[Any]:
    shape = [m if k != axis and n == 1 else n for k, (n, m) in enumerate(zip(array.shape, order.shape, strict=True))]
    return np.take_along_axis(np.broadcast_to(array, shape), order, axis=axis)
