"""Moments of activations, channel by channel: count, sum and sum of squares over a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Array
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.padding import rows_of
from prunegraph.observe.text import Batch


class Moments:
    """Count, sum and sum of squares over all positions but padding, in float64.

    Attributes:
        count: How many positions were seen of every value.
        sums: By value, the sum along its axis.
        squares: By value, the sum of squares along its axis.
    """

    takes_parts = True

    def __init__(self, places: Sequence[tuple[str, int]]) -> None:
        """Observe values along one axis each, see `attention_sites.consumers`."""
        self.places = tuple(dict.fromkeys(places))
        self.count: dict[str, float] = {}
        self.sums: dict[str, npt.NDArray[np.float64]] = {}
        self.squares: dict[str, npt.NDArray[np.float64]] = {}

    @property
    def key(self) -> str:
        """The values and axes."""
        return f"moments/{self.places}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """The values whose moments are gathered."""
        return [ObservedValue(name) for name, _ in self.places]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Add one batch, or some of its values; rows that fill up a fixed batch and padding do not count."""
        for name, axis in self.places:
            if name not in values:
                continue
            rows = rows_of(values[name], axis, batch)
            self.count[name] = self.count.get(name, 0.0) + len(rows)
            self.sums[name] = self.sums.get(name, 0.0) + rows.sum(axis=0, dtype=np.float64)
            self.squares[name] = self.squares.get(name, 0.0) + np.einsum("pc,pc->c", rows, rows, dtype=np.float64)

    def merge(self, other: Moments) -> None:
        """Add what another has gathered of the same values."""
        for name in other.count:
            self.count[name] = self.count.get(name, 0.0) + other.count[name]
            self.sums[name] = self.sums.get(name, 0.0) + other.sums[name]
            self.squares[name] = self.squares.get(name, 0.0) + other.squares[name]

    def state(self) -> dict[str, Array]:
        """Three arrays a value, numbered."""
        arrays: dict[str, Array] = {}
        for k, (name, _) in enumerate(self.places):
            arrays |= {f"n{k}": np.array(self.count[name]), f"s{k}": self.sums[name], f"q{k}": self.squares[name]}
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        for k, (name, _) in enumerate(self.places):
            self.count[name], self.sums[name], self.squares[name] = (
                float(state[f"n{k}"]),
                state[f"s{k}"],
                state[f"q{k}"],
            )
