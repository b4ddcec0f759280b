"""Lengths of axes before and after pruning."""

from __future__ import annotations

from fractions import Fraction

from prunegraph.analysis.axes import Axis, Size
from prunegraph.analysis.slots import Keeps, axis_size
from prunegraph.analysis.solve import Solution


class Lengths:
    """How long axes were and will be."""

    def __init__(self, solution: Solution, keeps: Keeps) -> None:
        """Lengths under `keeps`; Dims not named there stay whole."""
        self._solution = solution
        self._keeps = keeps
        self.probes = solution.space.probes
        self._known: dict[Axis, tuple[Size, Size]] = {}

    def new_dim(self, dim: int) -> Size:
        """How long a Dim will be."""
        keep = self._keeps.get(dim)
        return self._solution.dim_size(dim) if keep is None else (keep.count,) * self.probes

    def both(self, axis: Axis) -> tuple[Size, Size]:
        """The old length and the new one."""
        if axis not in self._known:
            old = axis_size(axis, self._solution.dim_size, self.probes)
            new = axis_size(axis, self.new_dim, self.probes) if any(d in self._keeps for d in axis.dims()) else old
            self._known[axis] = old, new
        return self._known[axis]

    def changed(self, axis: Axis) -> bool:
        """Whether the axis gets shorter."""
        old, new = self.both(axis)
        return old != new

    def ratio(self, axis: Axis) -> Fraction:
        """New over old, the same in every run."""
        old, new = self.both(axis)
        ratios = {Fraction(n, o) for n, o in zip(new, old, strict=True)}
        assert len(ratios) == 1, "a dynamic axis does not shrink in proportion"
        return ratios.pop()
