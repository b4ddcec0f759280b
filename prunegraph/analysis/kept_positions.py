"""Which positions of a value stay, whatever lengths its dynamic axes have in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunegraph.analysis.axes import Size
from prunegraph.analysis.slots import Keeps, compress, kept_positions
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Array, Mask


class Positions:
    """The positions that stay of every value of a graph."""

    def __init__(self, solution: Solution, keeps: Keeps) -> None:
        """Positions under `keeps`; Dims not named there stay whole."""
        self._solution = solution
        self._keeps = keeps
        self._of: dict[str, Sequence[Mask | None]] = {}

    def _period(self, dim: int) -> Size:
        """A dynamic Dim counts once: it varies slowest, so that a mask repeats with it."""
        size = self._solution.dim_size(dim)
        return size if len(set(size)) == 1 else (1,) * len(size)

    def of(self, value: str) -> Sequence[Mask | None]:
        """A mask for every axis of a value, None where all stays; along dynamic axes it repeats."""
        if value not in self._of:
            self._of[value] = kept_positions(self._solution.resolve(value), self._keeps, self._period)
        return self._of[value]

    def nothing_left(self, value: str) -> bool:
        """Whether an axis of a value has no position that stays."""
        return value in self._solution.axes and any(mask is not None and not mask.any() for mask in self.of(value))

    def dynamic(self, value: str, axis: int) -> bool:
        """Whether an axis of a value is longer in some runs than in others."""
        return len(set(self._solution.facts.shapes[value][axis])) > 1

    def mask(self, value: str, axes: Sequence[int]) -> Mask | None:
        """One mask for several axes of a value, broadcastable to it; None where nothing goes."""
        masks = self.of(value)
        total: Mask | None = None
        for axis in axes:
            mask = masks[axis]
            if mask is None:
                continue
            if mask.ndim == 1:
                mask = mask.reshape([-1 if k == axis else 1 for k in range(len(masks))])
            total = mask if total is None else np.asarray(total & mask)
        return total

    def cut(self, value: str, array: Array) -> Array:
        """What stays of a value."""
        if value not in self._solution.axes:
            return array
        kept = self.of(value)
        masks = [None if mask is None else _repeated(mask, axis, array.shape) for axis, mask in enumerate(kept)]
        return compress(array, masks) if any(mask is not None for mask in masks) else array

    def cut_all(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What stays of several values, by name."""
        return {name: self.cut(name, array) for name, array in arrays.items()}


def _repeated(mask: Mask, axis: int, shape: Sequence[int]) -> Mask:
    """A mask as often as a dynamic axis holds it."""
    if mask.ndim == 1:
        return np.tile(mask, shape[axis] // mask.shape[0])
    return np.tile(mask, [n // m if m > 1 else 1 for n, m in zip(shape, mask.shape, strict=True)])
