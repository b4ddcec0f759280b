"""Magnitude: the Euclidean norm of all weights that a unit takes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import unit_sums
from prunegraph.passes.score.base import Context, Scorer, Scores


@dataclass(frozen=True)
class Magnitude(Scorer):
    """The Euclidean norm of all weights that a unit takes with it."""

    name: ClassVar[str] = "magnitude"

    def score(self, group: Group, context: Context) -> Scores:
        """`sqrt(Σ w²)` over every entry of every weight that belongs to the unit."""
        solution = context.analysis.solution
        energy = np.zeros(group.shape)
        for name in dict.fromkeys(place.name for place in group.places):
            tensor = context.model.graph.initializers[name].const_value
            assert tensor is not None
            axes = solution.resolve(name)
            energy += unit_sums(_squares(tensor.numpy()), axes, group.dim, group.outer, solution.dim_size)
        return np.asarray(np.sqrt(energy))


def _squares(weight: npt.NDArray[Any]) -> Callable[[tuple[int, ...]], npt.NDArray[np.float64]]:
    """Sums of squares over all axes but some, in float64 and without a copy of the weight."""
    floats: Any = weight if weight.dtype.kind in "fiu" else weight.astype(np.float32)
    every = list(range(weight.ndim))

    def total(kept: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return np.asarray(np.einsum(floats, every, floats, every, list(kept), dtype=np.float64, casting="same_kind"))

    return total
