"""Compare two arrays to rounding, at a scale of their own for every slice along every axis.

One output may hold boxes of hundreds beside scores of hundredths: what is small beside the one is all there is of the
other.  So a difference has to be small beside every slice that it lies in, and where the numbers of a slice are what is
left of a cancellation, what counts as small is what rounding was seen to do to it in this very model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Array

Vector = npt.NDArray[np.float64]

TOLERANCE = 1e-4
"""Largest difference, relative to the largest value of a slice, that counts as rounding without further proof."""

NOISE = 8.0
"""How many times the rounding that was measured in a slice a difference may be, see `slice_noise`."""

_LEAST = 1e-30
"""Below this float32 underflows, here or there."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two arrays are apart.

    Attributes:
        absolute: Largest difference; infinite where the shapes differ, or one of both is not finite.
        relative: The same, relative to the largest value of the whole array.
        excess: The largest difference over what counts as rounding in its slice: more than 1 is no rounding.
        axis: Along which axis that slice is one index, -1 for an array without axes.
        index: Which index.
        length: How many slices there are along it.
    """

    absolute: float = 0.0
    relative: float = 0.0
    excess: float = 0.0
    axis: int = -1
    index: int = 0
    length: int = 1

    @property
    def rounding(self) -> bool:
        """Whether the arrays are equal to rounding."""
        return self.excess <= 1


EQUAL = Gap()
APART = Gap(float("inf"), float("inf"), float("inf"))


def compare(expected: Array, actual: Array, noise: Sequence[Vector] | None = None) -> Gap:
    """How far `actual` is from `expected`, slice by slice along every axis.

    Equal infinities are equal, and so are two NaNs.

    Args:
        expected: The numbers that give the scales.
        actual: What is compared with them.
        noise: What rounding does to every slice, see `slice_noise`; nothing if None.

    >>> compare(np.array([[640.0, 0.5]]), np.array([[640.001, 0.5]])).rounding
    True
    >>> compare(np.array([[640.0, 0.5]]), np.array([[640.0, 0.501]])).rounding
    False
    """
    if expected.shape != actual.shape:
        return APART
    if expected.size == 0:
        return EQUAL
    if expected.dtype.kind not in "fiub" or actual.dtype.kind not in "fiub":
        return EQUAL if np.array_equal(expected, actual) else APART
    if np.array_equal(expected, actual):
        return EQUAL
    gap = difference(expected, actual)
    absolute = float(gap.max())
    if absolute == 0:
        return EQUAL
    if not np.isfinite(absolute):
        return APART
    sizes = _finite_sizes(expected.astype(gap.dtype, copy=False))
    scale = float(sizes.max())
    worst = Gap(absolute, absolute / max(scale, _LEAST), -1.0)
    for axis, (gaps, scales) in enumerate(zip(slice_maxima(gap), slice_maxima(sizes), strict=True)):
        rounding = NOISE * noise[axis] if noise is not None else np.zeros_like(gaps)
        allowed = TOLERANCE * scales + np.minimum(rounding, TOLERANCE * scale)
        excess = gaps / np.maximum(allowed, _LEAST)
        index = int(excess.argmax())
        if excess[index] > worst.excess:
            where = axis if expected.ndim else -1
            worst = replace(worst, excess=float(excess[index]), axis=where, index=index, length=len(excess))
    return worst


def are_apart(expected: Array, actual: Array, noise: Sequence[Vector] | None = None) -> bool:
    """Whether two arrays differ by more than rounding, as `compare` says it: one slice that does is enough.

    >>> are_apart(np.array([1.0, 2.0]), np.array([1.0, 2.1])), are_apart(np.array([1.0]), np.array([1.000001]))
    (True, False)
    """
    if expected.shape == actual.shape and expected.size and expected.dtype.kind == actual.dtype.kind == "f":
        for axis in sorted(range(expected.ndim), key=lambda axis: -expected.shape[axis]):  # the smallest slice first
            one, other = expected.take(0, axis), actual.take(0, axis)
            rounding = NOISE * float(noise[axis][0]) if noise is not None else 0.0
            allowed = TOLERANCE * float(_finite_sizes(one).max()) + rounding
            if float(difference(one, other).max()) > max(allowed, _LEAST):
                return True
    return not compare(expected, actual, noise).rounding


def same_bytes(a: Array, b: Array) -> bool:
    """Whether two arrays of one shape and type hold the same, NaNs included."""
    whole = np.dtype(f"u{a.itemsize}") if a.itemsize in (1, 2, 4, 8) else None
    if whole is None or a.dtype.hasobject:
        return a.tobytes() == b.tobytes()
    return np.array_equal(np.ascontiguousarray(a).view(whole), np.ascontiguousarray(b).view(whole))


def _finite_sizes(array: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Absolute values, zero where they are not finite."""
    sizes = np.abs(array)
    return np.asarray(sizes if np.isfinite(sizes.max()) else np.where(np.isfinite(sizes), sizes, sizes.dtype.type(0)))


def difference(a: Array, b: Array) -> npt.NDArray[np.floating]:
    """Absolute differences of two arrays of one shape; 0 for equal NaN and Inf, infinite for one NaN alone."""
    kind: Any = np.float32 if a.dtype == b.dtype == np.float32 else np.float64
    left, right = a.astype(kind, copy=False), b.astype(kind, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.asarray(np.abs(left - right))
    if gap.size == 0 or np.isfinite(gap.max()):
        return gap
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    gap = np.where(same, kind(0), gap)
    return np.asarray(np.where(np.isnan(gap), kind(np.inf), gap))


def slice_maxima(array: npt.NDArray[np.floating]) -> list[Vector]:
    """The largest number of every slice along every axis; one slice where there is no axis.

    >>> slice_maxima(np.array([[1.0, 5.0], [2.0, 0.0]]))
    [array([5., 2.]), array([2., 5.])]
    """
    if array.ndim <= 1:
        return [array.reshape(-1).astype(np.float64)]
    half = array.ndim // 2  # two passes over everything, however many axes there are
    first, last = tuple(range(half)), tuple(range(half, array.ndim))
    return [*slice_maxima(array.max(axis=last)), *slice_maxima(array.max(axis=first))]


def slice_noise(array: Array, again: Array) -> list[Vector] | None:
    """What rounding does to every slice: how far two runs that differ in nothing else are apart.

    None where the shapes differ. What is not finite in one of them alone says nothing.
    """
    if array.shape != again.shape or array.size == 0 or array.dtype.kind != "f":
        return None
    gap = difference(array, again)
    return slice_maxima(np.where(np.isfinite(gap), gap, 0.0))


def noisier(noises: Iterable[Sequence[Vector] | None]) -> list[Vector] | None:
    """The larger noise of several measurements, slice by slice."""
    measured = [noise for noise in noises if noise is not None]
    return [np.maximum.reduce(each) for each in zip(*measured, strict=True)] if measured else None
