"""Fit what a cut model lacks, place by place: a product of a weight by ridge least squares, a norm channel by channel.

What is fitted is the difference between what a place should make and what it makes now, so that nothing to make up for
changes nothing.  Moments of fitted and of held-out samples are kept apart: the latter choose the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from prunegraph.arrays import Array, Floats
from prunegraph.passes.repair.fit import GAIN
from prunegraph.passes.repair.statistics import FIT, JUDGE, POSITIONS

RIDGES = (1e-3, 1e-2, 1e-1)
"""Shares of the features' mean variance that are tried; held-out samples choose."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best of what was tried at one place.

    Attributes:
        method: "none", "bias", "lstsq" or "gain".
        errors: By method the error on held-out samples, relative to what the place should make.
        change: What is added to a weight `[features, outputs]`, or the share that is added to gains `[channels]`.
        offset: What is added to the bias; None where there is none.
    """

    method: str = "none"
    errors: Mapping[str, float] = field(default_factory=dict)
    change: Floats | None = None
    offset: Floats | None = None


class ProductMoments:
    """`Σ w z zᵀ`, `Σ w z eᵀ` and `Σ w |e|²` with `z = (features, 1)` and what is lacking, e; two parts."""

    def __init__(self) -> None:
        """Begin with nothing gathered."""
        self._waiting: list[list[tuple[Array, Array]]] = [[], []]
        self._own: list[Floats] = []
        self._cross: list[Floats] = []
        self._squares, self._sizes = np.zeros(2), np.zeros(2)

    def add(self, part: int, features: Array, lacks: Array, scale: Array, size: float) -> None:
        """Add positions: `[positions, features]`, `[positions, outputs]`, the root of their weight, and `Σ w |t|²`."""
        z = np.concatenate([features, np.ones((len(features), 1), features.dtype)], axis=1) * scale[:, None]
        self._waiting[part].append((z, lacks * scale[:, None]))
        self._sizes[part] += size
        if sum(len(rows) for rows, _ in self._waiting[part]) >= POSITIONS // 4:
            self._flush(part)

    def _flush(self, part: int) -> None:
        if not self._waiting[part]:
            return
        z, e = (np.concatenate(each).astype(np.float64) for each in zip(*self._waiting[part], strict=True))
        self._waiting[part] = []
        if not self._own:
            self._own = [np.zeros((z.shape[1], z.shape[1])) for _ in (FIT, JUDGE)]
            self._cross = [np.zeros((z.shape[1], e.shape[1])) for _ in (FIT, JUDGE)]
        self._own[part] += z.T @ z
        self._cross[part] += z.T @ e
        self._squares[part] += float(np.vdot(e, e))

    def fitted(self, *, biased: bool) -> Fitted:
        """The best of nothing, a bias, and least squares with one of `RIDGES`.

        Args:
            biased: Whether there is a bias to change.
        """
        for part in (FIT, JUDGE):
            self._flush(part)
        if not self._sizes.all():
            return Fitted()
        own, cross = self._own, self._cross
        tried = {("none", 0.0): np.zeros_like(cross[FIT])}
        if biased:
            tried["bias", 0.0] = _least_squares(own[FIT], cross[FIT], None, biased=True)
        tried |= {("lstsq", r): _least_squares(own[FIT], cross[FIT], r, biased=biased) for r in RIDGES}
        every = {key: self._error(change) for key, change in tried.items()}
        best = min(every, key=lambda key: every[key])
        errors = {method: min(e for (name, _), e in every.items() if name == method) for method, _ in every}
        if every[best] >= (1 - GAIN) * errors["none"]:
            return Fitted("none", errors)
        ridge = best[1] if best[0] == "lstsq" else None
        change = _least_squares(own[FIT] + own[JUDGE], cross[FIT] + cross[JUDGE], ridge, biased=biased)
        return Fitted(best[0], errors, change[:-1], change[-1] if biased else None)

    def _error(self, change: Floats) -> float:
        held_out = self._squares[JUDGE] - 2 * np.vdot(change, self._cross[JUDGE])
        held_out += np.vdot(change, self._own[JUDGE] @ change)
        return float(np.sqrt(max(float(held_out), 0.0) / self._sizes[JUDGE]))


def _least_squares(own: Floats, cross: Floats, ridge: float | None, *, biased: bool) -> Floats:
    """`[features + 1, outputs]`, the last row being the bias; without a ridge only that."""
    count = own[-1, -1]
    means = own[-1, :-1] / count if biased else np.zeros(len(own) - 1)
    lacking = cross[-1] / count if biased else np.zeros(cross.shape[1])
    if ridge is None:
        return np.concatenate([np.zeros_like(cross[:-1]), lacking[None]])
    variance = own[:-1, :-1] / count - np.outer(means, means)
    target = cross[:-1] / count - np.outer(means, lacking)
    variance[np.diag_indices_from(variance)] += ridge * float(np.diag(variance).mean()) + 1e-30
    try:
        change = np.linalg.solve(variance, target)
    except np.linalg.LinAlgError:
        change = np.linalg.lstsq(variance, target, rcond=None)[0]
    return np.concatenate([change, (lacking - means @ change)[None]])


class NormMoments:
    """Channel by channel the sums that a line through what a norm makes needs; two parts."""

    def __init__(self) -> None:
        """Begin with nothing gathered."""
        self._sums: Floats | None = None
        self._sizes = np.zeros(2)

    def add(self, part: int, makes: Array, lacks: Array, scale: Array, size: float) -> None:
        """Add positions, see `ProductMoments.add`."""
        n, e, w = makes.astype(np.float64), lacks.astype(np.float64), np.square(scale.astype(np.float64))[:, None]
        sums = [np.broadcast_to(w, n.shape), w * n, w * n * n, w * e, w * n * e, w * e * e]
        if self._sums is None:
            self._sums = np.zeros((2, len(sums), n.shape[1]))
        self._sums[part] += np.stack([each.sum(axis=0) for each in sums])
        self._sizes[part] += size

    def fitted(self, *, biased: bool) -> Fitted:
        """A gain and an offset a channel, where the error on held-out samples falls; see `ProductMoments.fitted`."""
        if self._sums is None or not self._sizes.all():
            return Fitted()
        change = _lines(self._sums[FIT], biased)
        errors = {"none": self._error(np.zeros_like(change)), "gain": self._error(change)}
        if errors["gain"] >= (1 - GAIN) * errors["none"]:
            return Fitted("none", errors)
        gain, offset = _lines(self._sums[FIT] + self._sums[JUDGE], biased)
        return Fitted("gain", errors, gain, offset if biased else None)

    def _error(self, change: Floats) -> float:
        assert self._sums is not None
        w, n, nn, e, ne, ee = self._sums[JUDGE]
        a, b = change
        squares = ee - 2 * (a * ne + b * e) + a * a * nn + 2 * a * b * n + b * b * w
        return float(np.sqrt(max(float(squares.sum()), 0.0) / self._sizes[JUDGE]))


def _lines(sums: Floats, biased: bool) -> Floats:
    """`[2, channels]`: slope and offset of what is lacking over what is made."""
    w, n, nn, e, ne, _ = sums
    mean, lacking = (n / w, e / w) if biased else (np.zeros_like(n), np.zeros_like(e))
    variance = nn / w - mean**2
    slope = (ne / w - mean * lacking) / np.maximum(variance + RIDGES[0] * variance.mean(), 1e-30)
    return np.stack([slope, lacking - slope * mean])
