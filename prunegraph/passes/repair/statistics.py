"""Second moments of the inputs of every repaired weight, fitted and held-out samples apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegraph.arrays import Array, Floats, Index, Mask
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.padding import owner, real
from prunegraph.observe.text import Batch
from prunegraph.passes.repair.sites import RepairSite, Window

HELD = 4
"""One sample in so many is held out: it judges a repair and has no part in it."""

POSITIONS = 8192
"""Positions of one batch that are looked at, drawn where there are more (images)."""

FLOOR = 0.1
"""Share of the median norm below which a position's output counts no more for being small."""

FIT, JUDGE = 0, 1


class Gram:
    """`Σ w z zᵀ` with `z = (features, 1)` over all positions but padding, for every site.

    A position's weight is `w = 1 / |y|²`, y being what the site makes of it: errors count relative to what they
    disturb, as the norm that follows sees them. Without that, one token with huge activations decides everything, and
    a mean that is right for it alone is added to all others.

    Attributes:
        sites: The sites by key.
        dtype: The format of the sums.
        before: How many samples of the data lie before those that it is given: which are held out hangs on that.
    """

    def __init__(self, sites: Sequence[RepairSite], *, dtype: type[np.floating[Any]] = np.float64) -> None:
        """Gather for these sites; sites with one key are gathered once."""
        self.sites = {site.key: site for site in sites}
        self.dtype = dtype
        self._sums: dict[tuple[str, str], Array] = {}
        self._counts: dict[tuple[str, str], Array] = {}
        self._waiting: dict[tuple[tuple[str, str], int], list[tuple[Array, Array]]] = {}
        self.before = 0
        self._seen = 0

    @property
    def key(self) -> str:
        """Differs where sites or number formats do."""
        return f"gram/{sorted(self.sites)}/{self.dtype.__name__}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """What goes in, and what comes out."""
        return [ObservedValue(name) for key in self.sites for name in key]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Add what one batch shows."""
        for key, site in self.sites.items():
            y = np.moveaxis(values[site.y], site.out, -1)
            chosen, held_out = draw_positions(y.shape[:-1], batch, self.before + self._seen)
            norms = np.square(y.reshape(-1, y.shape[-1])[chosen].astype(np.float64)).sum(axis=-1)
            scale = 1 / np.sqrt(floored(norms))
            for part, where in ((FIT, ~held_out), (JUDGE, held_out)):
                self._add(key, part, features(values[site.x], site, chosen[where]), scale[where])
        self._seen += len(batch.samples)

    def merge(self, other: Gram) -> None:
        """Add what another has gathered at the same sites, its `before` being what this one has seen."""
        for key in self.sites:
            for part in (FIT, JUDGE):
                self._flush(key, part)
                other._flush(key, part)
            if key in other._sums:
                zeros = np.zeros_like(other._sums[key]), np.zeros_like(other._counts[key])
                self._sums[key] = self._sums.get(key, zeros[0]) + other._sums[key]
                self._counts[key] = self._counts.get(key, zeros[1]) + other._counts[key]
        self._seen += other._seen

    def sums(self, key: tuple[str, str]) -> tuple[Array, Array]:
        """Of one site `[2, features + 1, features + 1]`, and how many positions: fitted and held-out samples."""
        for part in (FIT, JUDGE):
            self._flush(key, part)
        return self._sums[key], self._counts[key]

    def _add(self, key: tuple[str, str], part: int, rows: Array, scale: Array) -> None:
        waiting = self._waiting.setdefault((key, part), [])
        waiting.append((rows, scale))
        if sum(len(rows) for rows, _ in waiting) >= max(rows.shape[1] + 1, POSITIONS // 4):
            self._flush(key, part)

    def _flush(self, key: tuple[str, str], part: int) -> None:
        """Few large products are faster than many small ones; they are taken in the format of the sums."""
        waiting = self._waiting.pop((key, part), [])
        if not waiting:
            return
        rows, scale = (np.concatenate(each) for each in zip(*waiting, strict=True))
        z = np.empty((len(rows), rows.shape[1] + 1), dtype=self.dtype)
        z[:, :-1], z[:, -1] = rows, 1
        z *= scale[:, None].astype(self.dtype)
        if key not in self._sums:
            self._sums[key] = np.zeros((2, z.shape[1], z.shape[1]), dtype=self.dtype)
            self._counts[key] = np.zeros(2, dtype=np.int64)
        self._sums[key][part] += z.T @ z
        self._counts[key][part] += len(z)

    def state(self) -> dict[str, Array]:
        """Two arrays a site, numbered."""
        arrays: dict[str, Array] = {}
        for k, key in enumerate(self.sites):
            arrays[f"g{k}"], arrays[f"n{k}"] = self.sums(key)
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        for k, key in enumerate(self.sites):
            self._sums[key], self._counts[key] = state[f"g{k}"], state[f"n{k}"]


def draw_positions(shape: tuple[int, ...], batch: Batch, samples_before: int) -> tuple[Index, Mask]:
    """Which (flat) positions of a batch are looked at, padding left out, and which of them are held out.

    Args:
        shape: The shape of all positions.
        batch: The batch.
        samples_before: How many samples of the data lie before it.
    """
    chosen = np.flatnonzero(real(shape, batch))
    if len(chosen) > POSITIONS:
        drawn = np.random.default_rng(samples_before).choice(len(chosen), POSITIONS, replace=False)
        chosen = chosen[np.sort(drawn)]
    held_out = (samples_before + owner(shape, batch).reshape(-1)[chosen]) % HELD == HELD - 1
    return chosen, np.asarray(held_out)


def floored(norms: Floats) -> Floats:
    """Squared norms of positions, none of them much below their median, see `FLOOR`."""
    return np.asarray(np.maximum(norms, max(FLOOR * float(np.median(norms)), 1e-30)))


def features(x: Array, site: RepairSite, chosen: Index) -> Array:
    """`[positions, features]` of what a site reads at some (flat) positions of its output."""
    if site.window is None:
        moved = np.moveaxis(x, site.axis, -1)
        return np.asarray(moved.reshape(-1, moved.shape[-1])[chosen])
    windows = _windows(x, site.window)
    rank = len(site.window.kernel)
    lead = (windows.shape[0], *windows.shape[2 : 2 + rank])
    image, *place = np.unravel_index(chosen, lead)
    return np.asarray(np.moveaxis(windows, 1, 1 + rank)[(image, *place)].reshape(len(chosen), -1))


def _windows(x: Array, window: Window) -> Array:
    """What a convolution reads at every position: a view `[batch, channels, *positions, *kernel]`."""
    rank = len(window.kernel)
    pads = [(0, 0), (0, 0), *zip(window.pads[:rank], window.pads[rank:], strict=True)]
    padded = np.pad(x, pads) if any(window.pads) else x
    reach = tuple((k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True))
    spaces = tuple(range(2, 2 + rank))
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=spaces)
    steps = [slice(None, None, step) for step in (1, 1, *window.strides, *window.dilations)]
    return np.asarray(view[tuple(steps)])
