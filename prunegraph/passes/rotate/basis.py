"""Bases in which the dims of a head are ordered by what they contribute, from second moments alone.

A head reads queries and keys only through `Q Kᵀ`, values only through `C W` (C: the attended values, W: what reads
them).  For every invertible `T`, `q T` and `k T⁻ᵀ` give the same scores, `c T` and `T⁻¹ W` the same output.  With
`Rqᵀ Rq = Σ q qᵀ` and `Rkᵀ Rk = Σ k kᵀ`, the singular values of `Rq Rkᵀ` are those of `Q Kᵀ` over all positions: the
basis that they come with loses exactly their tail, and no other choice of as many dims loses less (Eckart-Young).
CLOVER (arXiv 2411.17426), A3 (2505.12942), Olica (2506.08436), KQ-SVD (2512.05916), MoDeGPT (2408.09632).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunegraph.arrays import Floats

RIDGE = 1e-6
"""Share of the mean second moment that is added to every one: dims that nothing was seen of stay invertible."""

FLOOR = 1e-6
"""Share of the largest singular value below which the scale of a dim is not balanced any more."""


@dataclass(frozen=True, slots=True)
class Basis:
    """A change of basis and what every new dim contributes.

    Attributes:
        matrix: `[units, units]`; one side becomes `x @ matrix`, the other `y @ inverse(matrix).T`.
        energy: `[units]`, the square of what the scores, or the output, lose without it; descending.
    """

    matrix: Floats
    energy: Floats


def compared_basis(left: Floats, right: Floats, ridge: float = RIDGE) -> Basis:
    """The basis of two sides that are multiplied with each other, such as queries and keys.

    >>> left, right = np.diag([1.0, 4.0]), np.diag([1.0, 9.0])
    >>> basis = compared_basis(left, right, ridge=0)
    >>> basis.energy.round(6).tolist()
    [36.0, 1.0]

    Args:
        left: `Σ q qᵀ` of one side.
        right: `Σ k kᵀ` of the other.
        ridge: See `RIDGE`.
    """
    root = square_root(left, ridge)
    return _basis(root, root @ square_root(right, ridge).T)


def orthogonal_basis(left: Floats, right: Floats, ridge: float = RIDGE) -> Basis:
    """A basis that keeps lengths, for two sides that are multiplied with each other and divided by their lengths.

    The directions are those of the geometric mean of both moments. Where these have the same directions it is the basis
    that `compared_basis` finds.

    Args:
        left: `Σ q qᵀ` of one side.
        right: `Σ k kᵀ` of the other; of what reads it `W Wᵀ`.
        ridge: See `RIDGE`.
    """
    root = square_root(left, ridge)
    inner = np.linalg.solve(root.T, np.linalg.solve(root.T, (right + right.T) / 2).T)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    half = (np.sqrt(np.sqrt(np.maximum(values, 0)))[:, None] * vectors.T) @ root
    _, vectors = np.linalg.eigh(half.T @ half)
    energy = np.maximum(_along(left, vectors) * _along(right, vectors), 0)
    order = np.argsort(-energy, kind="stable")
    return Basis(vectors[:, order], energy[order])


def _along(moments: Floats, vectors: Floats) -> Floats:
    """The second moment along each of some directions."""
    return np.asarray(np.einsum("ij,ik,kj->j", vectors, moments, vectors))


def read_basis(moments: Floats, readers: Floats, ridge: float = RIDGE) -> Basis:
    """The basis of values that weights read.

    Args:
        moments: `Σ c cᵀ` of what is read.
        readers: `[units, outputs]`, all that read it side by side.
        ridge: See `RIDGE`.
    """
    root = square_root(moments, ridge)
    return _basis(root, root @ readers)


def _basis(root: Floats, product: Floats) -> Basis:
    """`root⁻¹ U √S`: either side gets half of the scale, so that both stay in the range of narrow formats."""
    u, s, _ = np.linalg.svd(product, full_matrices=True)
    s = np.pad(s, (0, len(root) - len(s)))
    largest = float(s[0]) if s[0] > 0 else 1.0
    balanced = np.sqrt(np.maximum(s, FLOOR * largest))
    return Basis(np.linalg.solve(root, u * balanced), s**2)


def square_root(moments: Floats, ridge: float = RIDGE) -> Floats:
    """`R` with `Rᵀ R = moments + ridge`, upper triangular; the identity where nothing was seen."""
    symmetric = (moments + moments.T) / 2
    mean = float(np.trace(symmetric)) / len(symmetric)
    if mean <= 0:
        return np.eye(len(symmetric))
    shifted = symmetric + ridge * mean * np.eye(len(symmetric))
    try:
        return np.asarray(np.linalg.cholesky(shifted).T, dtype=np.float64)
    except np.linalg.LinAlgError:  # rounding has made it indefinite
        values, vectors = np.linalg.eigh(symmetric)
        least = max(ridge, 1e-12) * mean
        return np.asarray(np.linalg.qr(np.sqrt(np.maximum(values, least))[:, None] * vectors.T)[1], dtype=np.float64)


def centred(moments: Floats, sums: Floats, count: float) -> Floats:
    """`Σ (k - μ)(k - μ)ᵀ` from `Σ k kᵀ`, `Σ k` and how many there are; a Softmax ignores a shift of all keys."""
    return np.asarray(moments - np.outer(sums, sums) / max(count, 1.0))


def inverse_transposed(matrices: Floats) -> Floats:
    """What the other side is multiplied by, `[..., units, units]`."""
    identity = np.broadcast_to(np.eye(matrices.shape[-1]), matrices.shape)
    return np.asarray(np.linalg.solve(np.swapaxes(matrices, -1, -2), identity), dtype=np.float64)


def energy_share(energy: Any) -> Floats:
    """Energies as shares of their sum, so that rows compare."""
    values = np.asarray(energy, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(values, total, out=np.full_like(values, 1 / values.shape[-1]), where=total > 0))
