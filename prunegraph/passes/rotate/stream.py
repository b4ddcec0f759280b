"""A basis for the residual stream of a pre-norm model in which its last directions contribute least.

All that writes to the stream is turned, all that reads a norm of it turned back.  LayerNormalization takes the mean
off, so the basis keeps means: what has none goes to what has none.  It is made for one width: cut to that, the stream
holds the directions that the norms see most of, and of all others at most a shift of a whole position, which the norms
take off.  SliceGPT (arXiv 2401.15024), with one basis for the whole stream, no adapters, and norms that stay norms.
"""

from __future__ import annotations

import numpy as np

from prunegraph.arrays import Floats
from prunegraph.passes.rotate.basis import Basis

_TIE = 1e-6
"""By this share the energies of slots descend that contribute alike, so that the first ones stay."""


def seen_by_norm(positions: Floats, *, centred: bool = True) -> Floats:
    """`Σ x xᵀ / mean square of x` over positions `[count, width]`, after the mean where the norm takes it off."""
    x = positions - positions.mean(axis=1, keepdims=True) if centred else positions
    size = np.mean(x**2, axis=1, keepdims=True)
    unit = np.divide(x, np.sqrt(size), out=np.zeros_like(x), where=size > 0)
    return np.asarray(unit.T @ unit)


def stream_basis(moments: Floats, width: int, *, centred: bool = True) -> Basis:
    """The orthogonal basis of a stream that shall be so wide: a position x becomes `x @ matrix`.

    >>> basis = stream_basis(np.diag([1.0, 9.0, 4.0]), 2, centred=False)
    >>> abs(np.array([0.0, 5.0, 0.0]) @ basis.matrix).round(6).tolist()
    [5.0, 0.0, 0.0]

    Args:
        moments: The sum of `seen_by_norm` over all norms.
        width: How many slots shall stay; they are the first ones.
        centred: Whether the norms take the mean off (LayerNormalization, not RMSNormalization).
    """
    before = len(moments)
    inside = _without_mean(before) if centred else np.eye(before)
    values, vectors = np.linalg.eigh(inside.T @ ((moments + moments.T) / 2) @ inside)
    order = np.argsort(-values, kind="stable")
    directions, values = inside @ vectors[:, order], np.maximum(values[order], 0)
    if not centred:
        return Basis(directions, _descending(values))
    frame = np.zeros((before, before - 1))
    frame[:width, : width - 1] = _without_mean(width)
    frame[:, width - 1 :] = _complement(frame[:, : width - 1])
    matrix = directions @ frame.T + np.full((before, before), 1 / before)
    lost_energy = values[width - 1 :].sum() / max(before - width, 1)
    kept_energy = max(values[: width - 1].sum() / width, lost_energy)
    return Basis(matrix, _descending(np.where(np.arange(before) < width, kept_energy, lost_energy)))


def _descending(energy: Floats) -> Floats:
    lowered = 1 - _TIE * np.arange(len(energy)) / len(energy)
    return np.asarray(energy * lowered if energy.any() else lowered)


def _complement(frame: Floats) -> Floats:
    """Orthonormal directions without a mean that some such directions do not span."""
    every = np.concatenate([np.ones((len(frame), 1)), frame, np.eye(len(frame))], axis=1)
    return np.asarray(np.linalg.qr(every)[0][:, frame.shape[1] + 1 :])


def _without_mean(width: int) -> Floats:
    """`[width, width - 1]`, orthonormal directions whose numbers add up to zero."""
    start = np.eye(width)
    start[:, 0] = 1
    return np.asarray(np.linalg.qr(start)[0][:, 1:])
