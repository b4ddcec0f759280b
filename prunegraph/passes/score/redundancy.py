"""Redundancy of units: how much the directions of the weights that make them overlap.

For the vector `w_i` of weights that make unit i, its score is `sum_j (1 - |cos(w_i, w_j)|)`: what points the way of
many others is low (SNP, arXiv 2404.11630, figure 2c; for value neurons over all heads of a layer).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import slots, unit_index
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Floats

_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Maker:
    """A weight that makes the units of a group, and which of its axes holds them."""

    weight: str
    axis: int


def makers(graph: ir.Graph, solution: Solution, group: Group) -> tuple[Maker, ...]:
    """Every weight whose product with an activation, or whose rows looked up, are the units of a group."""
    weights: dict[Maker, None] = {}
    for node, contractions in zip(graph, solution.contracted, strict=True):
        for contraction in contractions:
            for operand in contraction.operands:
                if not operand.is_weight or group.dim not in operand.leaves:
                    continue
                axis = _axis_of(solution.resolve(operand.value), group.dim, list(operand.free))
                if contraction.summed and axis is not None:
                    weights[Maker(operand.value, axis)] = None
        weights |= dict.fromkeys(_looked_up(node, solution, group))
    return tuple(weights)


def _looked_up(node: ir.Node, solution: Solution, group: Group) -> Iterator[Maker]:
    """The table of an embedding, whose columns write the stream."""
    table = node.inputs[0] if node.op_type == "Gather" else None
    if table is None or table.name not in solution.weights or node.outputs[0].name in solution.weights:
        return
    axes = solution.resolve(table.name)
    picked = node.attributes.get_int("axis", 0) % max(len(axes), 1)
    columns = [axis for axis in range(len(axes)) if axis != picked and group.dim in axes[axis].dims()]
    if columns:
        yield Maker(table.name, columns[0])


def _axis_of(axes: tuple[Axis, ...], dim: int, stated: list[int]) -> int | None:
    with_units = [k for k, axis in enumerate(axes) if dim in axis.dims() and (not stated or k in stated)]
    return with_units[0] if with_units else None


def unit_vectors(weight: npt.NDArray[Any], maker: Maker, group: Group, solution: Solution) -> Floats:
    """`[rows · units, numbers]`: what a weight holds of every unit, slots of one unit one after the other."""
    axes = solution.resolve(maker.weight)
    tables = [slots(axis, solution.dim_size, {group.dim, *group.outer}.__contains__) for axis in axes]
    where = next(column for dim, column in tables[maker.axis] if dim == group.dim)
    index, free = unit_index(maker.axis, where, group.outer, tables, len(axes))
    flat = np.ravel_multi_index(tuple(np.maximum(c, 0) for c in np.broadcast_arrays(*index)), group.shape)
    flat = np.where(free, -1, flat)
    unit_axes = [maker.axis] if flat.ndim == 1 else [k for k, n in enumerate(flat.shape) if n > 1]
    rows = np.moveaxis(np.asarray(weight, dtype=np.float64), unit_axes, range(len(unit_axes)))
    owner = flat.reshape(-1)
    rows = rows.reshape(owner.size, -1)[owner >= 0]
    owner = owner[owner >= 0]
    order = np.argsort(owner, kind="stable")
    nth = np.arange(owner.size) - np.searchsorted(owner[order], owner[order])
    vectors = np.zeros((int(np.prod(group.shape)), int(nth.max(initial=0)) + 1, rows.shape[1]))
    vectors[owner[order], nth] = rows[order]
    return vectors.reshape(len(vectors), -1)


def redundancy(vectors: Floats, distance: str = "cosine") -> Floats:
    """How far every row is from all others, in matrix form and by blocks; a row of zeros scores 0.

    Args:
        vectors: A unit a row.
        distance: "cosine", `sum_j (1 - |cos(w_i, w_j)|)`, or "euclidean", `sum_j |w_i - w_j|`.

    >>> redundancy(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    array([1., 1., 2.])
    """
    blocks = [_distances(vectors, slice(k, k + _BLOCK), distance).sum(axis=1) for k in range(0, len(vectors), _BLOCK)]
    return np.concatenate(blocks)


def distances(vectors: Floats, distance: str = "cosine") -> Floats:
    """The distance of all pairs of rows, see `redundancy`; zero on the diagonal and for rows of zeros."""
    return _distances(vectors, slice(None), distance)


def _distances(vectors: Floats, rows: slice, distance: str) -> Floats:
    if distance == "cosine":
        unit, alive = _directions(vectors)
        apart = 1 - np.abs(unit[rows] @ unit.T)
    else:
        squares = (vectors**2).sum(axis=1)
        alive = squares > 0
        apart = np.sqrt(np.maximum(squares[rows, None] + squares - 2 * vectors[rows] @ vectors.T, 0))
    apart[np.arange(len(apart)), np.arange(len(vectors))[rows]] = 0
    apart[~alive[rows]] = 0
    return np.asarray(apart)


def _directions(vectors: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    norms = np.linalg.norm(vectors, axis=1)
    return vectors / np.where(norms > 0, norms, 1.0)[:, None], norms > 0


def removal_order(distance: Floats, rows: int = 1) -> Floats:
    """When every unit would go if redundancy were looked at anew after each removal: 0 goes first.

    Of the two units that are nearest to each other the one goes whose score among those left is lower; so of duplicates
    one stays as long as others are nearer than what it says.  The score alone does not do that: in a sum over hundreds
    of units, one duplicate more or less hardly counts.  All rows lose one unit before any loses a second, since they
    keep equal numbers.

    Args:
        distance: `[rows · units, rows · units]`, see `distances`.
        rows: How many rows choose by themselves.
    """
    count = len(distance)
    row = np.repeat(np.arange(rows), count // rows)
    apart = distance + np.diag(np.full(count, np.inf))
    score, nearest = distance.sum(axis=1), apart.argmin(axis=1)
    near = apart[np.arange(count), nearest]
    left, served = np.ones(count, dtype=bool), np.zeros(rows, dtype=bool)
    order = np.empty(count)
    for step in range(count):
        able = left & ~served[row]
        unit = int(np.lexsort((score, np.where(able, near, np.inf), ~able))[0])
        order[unit], left[unit], served[row[unit]] = step, False, True
        score = score - distance[:, unit]
        apart[:, unit] = np.inf
        orphans = np.flatnonzero(left & (nearest == unit))
        nearest[orphans] = apart[orphans].argmin(axis=1)
        near[orphans] = apart[orphans, nearest[orphans]]
        if served.all():
            served[:] = False
    return order
