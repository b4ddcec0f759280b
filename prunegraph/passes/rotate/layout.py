"""Where the slots of a Dim lie in a tensor, block by block, and the matrix product along them.

An axis `h·d + h·d + h·e` holds `d` twice; an occurrence is one of these terms, and every block of it holds each slot of
`d` once.  Which row of a choice a block belongs to follows from the slots of the outer Dims at the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import slots
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Array, Floats, Index, Mask


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one occurrence of the Dim of a group lies in a tensor.

    Attributes:
        axis: The axis that holds it.
        positions: `[blocks, units]`, the positions of every block on that axis in the order of the slots.
        outer: For every outer Dim of the group, the axis that holds it and its slot at every position there; where that
            axis is longer, its slots repeat.
        rows: The lengths of the outer Dims.
    """

    axis: int
    positions: Index
    outer: tuple[tuple[int, Index], ...]
    rows: tuple[int, ...]

    def blocks(self, array: Array, where: Mask | None = None) -> Iterator[tuple[int, Floats]]:
        """Row of the choice and `[places, units]`, for every row of every block.

        Args:
            array: The tensor.
            where: Which places count, over all axes but the one that holds the units; all if None.
        """
        moved = np.moveaxis(array, self.axis, -1)
        for positions, row, chosen in self._parts(array.shape):
            places = chosen if where is None else where if chosen is None else chosen & where
            rows_of_places = moved.reshape(-1, moved.shape[-1]) if places is None else moved[places]
            yield row, np.asarray(rows_of_places[:, positions], dtype=np.float64)

    def times(self, array: Array, matrices: Floats) -> Floats:
        """The tensor with every block multiplied by the matrix of its row from the right, in float64.

        Args:
            array: The tensor.
            matrices: `[rows, units, units]`.
        """
        product = np.array(array, dtype=np.float64)
        moved = np.moveaxis(product, self.axis, -1)
        for positions, row, chosen in self._parts(array.shape):
            if chosen is None:
                moved[..., positions] = moved[..., positions] @ matrices[row]
                continue
            block = moved[chosen]
            block[:, positions] = block[:, positions] @ matrices[row]
            moved[chosen] = block
        return product

    def _parts(self, shape: tuple[int, ...]) -> Iterator[tuple[Index, int, Mask | None]]:
        """Positions of a block, its row, and at which places (None: all) it belongs to that row."""
        lead = shape[: self.axis] + shape[self.axis + 1 :]
        for positions in self.positions:
            row = np.zeros((1,) * len(lead), dtype=np.int64)
            for (axis, column), length in zip(self.outer, self.rows, strict=True):
                if axis == self.axis:
                    slot: Index = column[positions[:1]].reshape((1,) * len(lead))
                else:
                    at = axis - (axis > self.axis)
                    slot = np.resize(column, shape[axis]).reshape([-1 if k == at else 1 for k in range(len(lead))])
                row = row * length + slot
            if row.size == 1:
                yield positions, int(row.flat[0]), None
                continue
            everywhere = np.broadcast_to(row, lead)
            yield from ((positions, int(each), everywhere == each) for each in np.unique(row))


def layouts(solution: Solution, axes: Sequence[Axis], group: Group, axis: int) -> list[Layout] | None:
    """One layout for every occurrence of a group's Dim on an axis, in order; None where places cannot be told."""
    if _is_dynamic(axes[axis], solution):
        return None
    if not all(_repeats(each, solution) for each in axes if set(group.outer) & set(each.dims())):
        return None
    tables = [slots(each, _period(solution), {group.dim, *group.outer}.__contains__) for each in axes]
    outer: list[tuple[int, Index]] = []
    for dim in group.outer:
        on_same = [column for other, column in tables[axis] if other == dim]
        elsewhere = [(k, column) for k, table in enumerate(tables) if k != axis for d, column in table if d == dim]
        candidates = [(axis, column) for column in on_same] or elsewhere
        if len(candidates) != 1:
            return None
        outer.append(candidates[0])
    layouts_on_axis = []
    for positions in _occurrences(axes[axis], group.dim, solution):
        columns = [column[positions] for k, column in outer if k == axis]
        if any((column < 0).any() or (column != column[:, :1]).any() for column in columns):
            return None
        if any((column < 0).any() for k, column in outer if k != axis):
            return None
        layouts_on_axis.append(Layout(axis, positions, tuple(outer), group.rows))
    return layouts_on_axis


def count_occurrences(axis: Axis, dim: int) -> int:
    """In how many terms an axis holds a Dim."""
    return sum(factor == dim for factor in axis.dims())


def _occurrences(axis: Axis, dim: int, solution: Solution) -> list[Index]:
    """`[blocks, slots]` for every term that holds a Dim, however deep, in the order of `Axis.dims`."""
    blocks: list[Index] = []
    start = 0
    for term in axis.terms:
        lengths = [_length(solution, factor) for factor in term]
        grid = np.arange(int(np.prod(lengths, dtype=np.int64))).reshape(lengths) + start
        for k, factor in enumerate(term):
            # Every way through the other factors is a block.
            beside = np.moveaxis(grid, k, -1).reshape(-1, lengths[k])
            if factor == dim:
                blocks.append(beside)
            elif isinstance(factor, Axis):
                inner = _occurrences(factor, dim, solution)
                blocks += [beside[:, positions].reshape(-1, positions.shape[1]) for positions in inner]
        start += grid.size
    return blocks


def _is_dynamic(axis: Axis, solution: Solution) -> bool:
    return any(len(set(solution.dim_size(dim))) > 1 for dim in axis.dims())


def _repeats(axis: Axis, solution: Solution) -> bool:
    """Whether an axis is static, or one product whose dynamic factors all stand first, so that its slots repeat."""
    dynamic = [any(len(set(solution.dim_size(d))) > 1 for d in _dims(f)) for term in axis.terms for f in term]
    return not any(dynamic) or (len(axis.terms) == 1 and dynamic == sorted(dynamic, reverse=True))


def _dims(factor: int | Axis) -> Iterator[int]:
    return iter((factor,)) if isinstance(factor, int) else factor.dims()


def _period(solution: Solution) -> Any:
    """The length of a Dim; a dynamic one counts once, it varies slowest."""

    def length(dim: int) -> tuple[int, ...]:
        size = solution.dim_size(dim)
        return size if len(set(size)) == 1 else (1,) * len(size)

    return length


def _length(solution: Solution, factor: int | Axis) -> int:
    if isinstance(factor, int):
        return int(_period(solution)(factor)[0])
    return sum(int(np.prod([_length(solution, f) for f in term], dtype=np.int64)) for term in factor.terms)
