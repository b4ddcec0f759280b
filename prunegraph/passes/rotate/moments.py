"""Second moments of what heads compare and read, d x d numbers a head, from one pass over the data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from prunegraph.arrays import Array, Floats
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.padding import real
from prunegraph.observe.text import Batch
from prunegraph.passes.rotate.layout import Layout

Place = tuple[str, Layout]


class HeadMoments:
    """`Σ z zᵀ` with `z = (x, 1)` by row of a choice, over all positions but padding, in float64.

    Attributes:
        places: The activations, and where the dims of a group lie in them.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        """Gather at these places."""
        self.places = {place_key(name, layout): (name, layout) for name, layout in places}
        self._sums: dict[str, Floats] = {
            key: np.zeros((int(np.prod(layout.rows)), *[layout.positions.shape[1] + 1] * 2))
            for key, (_, layout) in self.places.items()
        }

    @property
    def key(self) -> str:
        """Differs where other places are observed."""
        return f"head moments/{sorted(self.places)}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """The activations whose moments say how groups turn."""
        return [ObservedValue(name) for name in dict.fromkeys(name for name, _ in self.places.values())]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Add one batch; positions that are not finite do not count."""
        for key, (name, layout) in self.places.items():
            array = values[name]
            lead = array.shape[: layout.axis] + array.shape[layout.axis + 1 :]
            for row, block in layout.blocks(array, real(lead, batch)):
                z = np.concatenate([block, np.ones((len(block), 1))], axis=1)
                z = z[np.isfinite(z).all(axis=1)]
                self._sums[key][row] += z.T @ z

    def sums(self, name: str, layout: Layout) -> Floats:
        """`[rows, units + 1, units + 1]` of one place."""
        return self._sums[place_key(name, layout)]

    def merge(self, other: HeadMoments) -> None:
        """Add what another has gathered at the same places."""
        for key, sums in other._sums.items():
            self._sums[key] += sums

    def state(self) -> dict[str, Array]:
        """One array a place, numbered."""
        return {f"m{k}": self._sums[key] for k, key in enumerate(sorted(self.places))}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        for k, key in enumerate(sorted(self.places)):
            self._sums[key] = np.asarray(state[f"m{k}"], dtype=np.float64)


def place_key(name: str, layout: Layout) -> str:
    """Names a place: the value, and which of its numbers belong to which row."""
    digest = hashlib.blake2b(np.ascontiguousarray(layout.positions).tobytes(), digest_size=16)
    for axis, column in layout.outer:
        digest.update(f"{axis}".encode() + np.ascontiguousarray(column).tobytes())
    return f"{name}/{layout.axis}/{layout.positions.shape}/{layout.rows}/{digest.hexdigest()}"
