"""Fewer directions for the residual stream of a pre-norm model: one basis for all of it, and its norms stay norms.

Whatever writes to the stream is given the basis `M`, whatever reads a norm of it the inverse.  LayerNormalization takes
the mean off, so `M` keeps only directions without one and leads to where all means are zero: there it divides by the
root of the mean square, which depends on lengths alone.  That `M` is as long as the stream is wide changes nothing, and
directions that the stream never takes cost nothing.  SliceGPT (arXiv 2401.15024), with one basis and no adapters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StreamBasis:
    """What a stream is turned and cut by.

    Attributes:
        matrix: `[width, old width]`; a position `x` of the stream becomes `matrix @ x`.
        energy: What each direction that stays holds of what the norms see, descending; a LayerNormalization leaves one
            less than the width.
    """

    matrix: Floats
    energy: Floats

    @property
    def lengthening(self) -> float:
        """How much larger the mean square of a position becomes, for it is taken over fewer numbers."""
        width, before = self.matrix.shape
        return float(before / width)

    def written(self, array: Floats) -> Floats:
        """A weight `[inputs, old width]`, a bias or a table that writes to the stream."""
        return np.asarray(array @ self.matrix.T)

    def read(self, weight: Floats) -> Floats:
        """A weight `[old width, outputs]` that reads a norm of the stream without gain and offset, see `absorbed`."""
        return np.asarray(math.sqrt(self.lengthening) * (self.matrix @ weight))

    def epsilon(self, before: float) -> float:
        """What the norm adds to the mean square."""
        return before * self.lengthening


def absorbed(weight: Floats, bias: Floats, gain: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """The weight `[width, outputs]` and bias of what reads a norm, with the norm's gain and offset taken in.

    >>> weight, bias = absorbed(np.ones((2, 1)), np.zeros(1), np.array([2.0, 3.0]), np.array([1.0, 1.0]))
    >>> weight.ravel().tolist(), bias.tolist()
    ([2.0, 3.0], [2.0])
    """
    return np.asarray(gain[:, None] * weight), np.asarray(bias + offset @ weight)


def seen_by_norm(positions: Floats, *, centred: bool = True) -> Floats:
    """`Σ x xᵀ / mean square of x` over positions `[count, width]`, after the mean where the norm takes it off."""
    x = positions - positions.mean(axis=1, keepdims=True) if centred else positions
    size = np.mean(x**2, axis=1, keepdims=True)
    unit = np.divide(x, np.sqrt(size), out=np.zeros_like(x), where=size > 0)
    return np.asarray(unit.T @ unit)


def stream_basis(moments: Floats, width: int, *, centred: bool = True) -> StreamBasis:
    """The directions that hold most of what the norms of a stream see.

    Args:
        moments: The sum of `seen_by_norm` over all norms.
        width: How wide the stream shall be.
        centred: Whether the norms take the mean off (LayerNormalization, not RMSNormalization).
    """
    before = len(moments)
    inside = _without_mean(before) if centred else np.eye(before)
    values, vectors = np.linalg.eigh(inside.T @ ((moments + moments.T) / 2) @ inside)
    kept = width - 1 if centred else width
    order = np.argsort(-values, kind="stable")[:kept]
    directions = inside @ vectors[:, order]
    frame = _without_mean(width) if centred else np.eye(width)
    return StreamBasis(np.asarray(frame @ directions.T), np.maximum(values[order], 0))


def _without_mean(width: int) -> Floats:
    """`[width, width - 1]`, orthonormal directions whose numbers add up to zero."""
    start = np.eye(width)
    start[:, 0] = 1
    return np.asarray(np.linalg.qr(start)[0][:, 1:])
