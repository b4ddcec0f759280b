"""Backward elimination by optimal brain surgery: which unit costs least once all others are re-fitted.

For `y = xᵀ W` with second moments `H` of `x`, `P = H⁻¹`, and `W̃` the weight re-fitted without what is gone, removing
the features j and re-fitting all others adds `tr(W̃_jᵀ (P_jj)⁻¹ W̃_j)` to the squared error; down-dates of P and W̃ then
make the next removal as cheap (Hassibi and Stork 1993; ZipLM, arXiv 2302.04089).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Floats, Index


@dataclass(frozen=True, slots=True)
class Reader:
    """A weight that reads units.

    Attributes:
        moments: `[features, features]`: second moments of what it reads, a ridge included.
        matrix: `[features, outputs]`.
        owner: By feature the number of its unit, -1 for features that always stay.
    """

    moments: Floats
    matrix: Floats
    owner: Index


def eliminate(readers: Sequence[Reader], rows: int, units: int, rounds: int) -> Floats:
    """By unit, `[rows * units]`, the summed squared error of all readers once it and all that went before are gone.

    Units go where that adds least; all rows lose equally many.

    Args:
        readers: Weights that read them; their errors add up.
        rows: How many rows choose by themselves.
        units: The units of a row.
        rounds: Where there are more units than this, several go at once, at least one of every row.
    """
    states = [_State(reader, rows * units) for reader in readers]
    alive = np.ones((rows, units), dtype=bool)
    errors = np.zeros(rows * units)
    error = 0.0
    each = 0 if rows * units <= rounds else -(-units // rounds)
    while alive.any():
        costs = np.zeros(rows * units)
        for state in states:
            costs += state.costs()
        costs = np.where(alive, costs.reshape(rows, units), np.inf)
        cheapest = _cheapest(costs, alive, each)
        added = sum(state.remove(cheapest) for state in states)
        # of several that go at once, the cheaper are said to have gone before
        shares = np.cumsum(costs.reshape(-1)[cheapest])
        errors[cheapest] = error + added * (shares / shares[-1] if shares[-1] > 0 else 1.0)
        error += added
        alive.reshape(-1)[cheapest] = False
    return errors


def _cheapest(costs: Floats, alive: npt.NDArray[np.bool_], each: int) -> Index:
    """The units that go next, the cheapest first: so many of each row, or (0) one of a row that has most left."""
    units = costs.shape[1]
    if not each:
        left = alive.sum(axis=1)
        most = np.where((left == left.max())[:, None], costs, np.inf)
        return np.array([int(most.argmin())])
    order = np.argsort(costs, axis=1, kind="stable")[:, : min(each, int(alive[0].sum()))]
    cheapest = (order + units * np.arange(len(costs))[:, None]).reshape(-1)
    return np.asarray(cheapest[np.argsort(costs.reshape(-1)[cheapest], kind="stable")])


class _State:
    """One reader while units go: the inverse moments and the weight, re-fitted, of what is left."""

    def __init__(self, reader: Reader, units: int) -> None:
        moments, matrix = reader.moments, reader.matrix
        self.inverse = np.linalg.inv(moments)
        self.inverse = (self.inverse + self.inverse.T) / 2
        # Only W Wᵀ counts: more outputs than features say nothing more.
        self.matrix = np.asarray(np.linalg.qr(matrix.T, mode="r")).T if matrix.shape[1] > len(matrix) else matrix.copy()
        self.owner = reader.owner.copy()
        self.gone = np.zeros(len(self.owner), dtype=bool)
        self.units = units

    def costs(self) -> Floats:
        """By unit the error that removing it adds; 0 for units that it does not read."""
        costs = np.zeros(self.units)
        owned = np.flatnonzero(self.owner >= 0)
        order = owned[np.argsort(self.owner[owned], kind="stable")]
        names, counts = np.unique(self.owner[order], return_counts=True)
        starts = np.cumsum(counts) - counts
        for size in np.unique(counts):
            of_size = counts == size
            blocks = order[starts[of_size][:, None] + np.arange(size)]  # [units, features of each]
            rows = self.matrix[blocks]
            own = self.inverse[blocks[:, :, None], blocks[:, None, :]]
            costs[names[of_size]] = (rows * np.linalg.solve(own, rows)).sum(axis=(1, 2))
        return np.maximum(costs, 0.0)

    def remove(self, units: Index) -> float:
        """Take units out and re-fit the rest; the error that this adds."""
        goes = np.flatnonzero(np.isin(self.owner, units))
        if not len(goes):
            return 0.0
        across, rows = self.inverse[:, goes], self.matrix[goes]
        solved = np.linalg.solve(across[goes], np.concatenate([rows, across.T], axis=1))
        weight, rest = solved[:, : rows.shape[1]], solved[:, rows.shape[1] :]
        self.matrix -= across @ weight
        self.inverse -= across @ rest
        self.gone[goes], self.owner[goes] = True, -1
        self.matrix[goes] = self.inverse[goes] = self.inverse[:, goes] = 0
        if 2 * self.gone.sum() > len(self.gone):
            self._drop()
        return max(float((rows * weight).sum()), 0.0)

    def _drop(self) -> None:
        """Forget what is gone, once that is most."""
        left = np.flatnonzero(~self.gone)
        self.inverse = self.inverse[np.ix_(left, left)]
        self.inverse = (self.inverse + self.inverse.T) / 2
        self.matrix, self.owner, self.gone = self.matrix[left], self.owner[left], self.gone[left]
