"""Groups: what a choice is about, and over which other slots it may differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prunegraph.analysis.axes import Axis, Size


@dataclass(frozen=True, slots=True)
class Place:
    """One axis of one initializer that a group makes shorter."""

    name: str
    axis: int
    expression: str

    def __str__(self) -> str:
        return f"{self.name}[{self.axis}]"


@dataclass(frozen=True, slots=True)
class Group:
    """One choice: which of `units` slots stay.

    Attributes:
        id: Kind and number, in the order of the graph: `head.0`.
        dim: The Dim it is about.
        kind: One of `roles.KINDS`.
        units: How many slots there are to choose from.
        outer: Dims over whose slots the choice may differ (equal counts); empty for one choice everywhere.
        rows: The lengths of the outer Dims, so that a keep array has the shape `(*rows, units)`.
        exact: Whether removing equals zeroing; False where a mean is taken over the axis, or the
            largest or smallest of its slots, which zero might be.
        places: The initializers that get smaller.
        scope: Where in the model it is, as far as names tell.
        params: How many parameters one unit takes with it.
        least: How many units must stay: as many as a router picks.
    """

    id: str
    dim: int
    kind: str
    units: int
    outer: tuple[int, ...]
    rows: tuple[int, ...]
    exact: bool
    places: tuple[Place, ...]
    scope: str
    params: int
    least: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a keep array, of scores, of anything that speaks of units one by one."""
        return (*self.rows, self.units)

    @property
    def names(self) -> tuple[str, str]:
        """What a pattern may match: its id and its scope."""
        return self.id, self.scope

    def __str__(self) -> str:
        return f"{self.id} ({self.units})"


def outer_dims(dim: int, holders: Iterable[tuple[Axis, ...]], size_of: Callable[[int], Size]) -> tuple[int, ...]:
    """The Dims without which no value holds `dim`: over their slots it may be chosen differently.

    A Dim counts only where it is unambiguous: in the same product further out, or throughout exactly one other axis.
    """

    def dynamic(other: int) -> bool:
        return len(set(size_of(other))) > 1

    common: set[int] | None = None
    for axes in holders:
        here = _outer_in(dim, axes, dynamic)
        common = here if common is None else common & here
        if not common:
            return ()
    return tuple(sorted(d for d in common or () if not dynamic(d)))


def _outer_in(dim: int, axes: tuple[Axis, ...], dynamic: Callable[[int], bool]) -> set[int]:
    holding = [k for k, axis in enumerate(axes) if dim in axis.dims()]
    throughout: dict[int, int] = defaultdict(int)
    for k, axis in enumerate(axes):
        if k in holding:
            continue
        for other in set(axis.dims()):
            every = all(_count(other, term) == 1 and _periodic(other, term, dynamic) for term in axis.terms)
            throughout[other] += 1 if every else 2
    once = {d for d, n in throughout.items() if n == 1}
    # Each axis that holds the Dim must see by itself which choice a slot belongs to.
    return set.intersection(*((_before(dim, axes[k]) or set()) | (once - set(axes[k].dims())) for k in holding))


def _count(dim: int, term: tuple[int | Axis, ...]) -> int:
    """How often `dim` is a factor of one and the same product; the terms of a sum are alternatives."""
    return sum(f == dim if isinstance(f, int) else max(_count(dim, inner) for inner in f.terms) for f in term)


def _periodic(dim: int, term: tuple[int | Axis, ...], dynamic: Callable[[int], bool]) -> bool:
    """Whether dynamic factors vary more slowly than `dim`, so that its slots repeat whatever their lengths."""
    rest = term[term.index(dim) + 1 :] if dim in term else term
    return not any(dynamic(d) for factor in rest for d in ((factor,) if isinstance(factor, int) else factor.dims()))


def _before(dim: int, axis: Axis) -> set[int] | None:
    """Dims that stand before `dim` in every product that holds it, None if none does."""
    common: set[int] | None = None
    for term in axis.terms:
        slower: set[int] = set()
        for factor in term:
            here: set[int] | None = None
            if factor == dim:
                here = set(slower)
            elif isinstance(factor, Axis) and (within := _before(dim, factor)) is not None:
                here = slower | within
            if here is not None:
                if _count(dim, term) != 1:
                    return set()
                here = {outer for outer in here if _count(outer, term) == 1}
                common = here if common is None else common & here
            slower |= {factor} if isinstance(factor, int) else set()
    return common
