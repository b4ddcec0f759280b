"""Groups whose units multiply along one axis of a weight: one number for all kinds takes one factor of every product.

The channels of a grouped convolution are groups times widths, query heads are groups times heads of each: half of both
would leave a quarter of the axis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.axes import Axis
from prunegraph.analysis.groups import Group


def beside_another(analysis: Analysis, groups: Sequence[Group]) -> dict[str, str]:
    """Which of these groups one number leaves alone, by id, and beside which other group.

    Taken first is what has most units: the finest choice.

    Args:
        analysis: The analysis that they are of.
        groups: All that one number could be for.
    """
    others = _factors(analysis, {group.dim for group in groups})
    first_of: dict[int, str] = {}
    left: dict[str, str] = {}
    for group in sorted(groups, key=lambda group: -group.units):
        beside = next((first_of[dim] for dim in others[group.dim] if dim in first_of), None)
        if beside is None:
            first_of[group.dim] = group.id
        else:
            left[group.id] = beside
    return {group.id: left[group.id] for group in groups if group.id in left}


def _factors(analysis: Analysis, dims: set[int]) -> Mapping[int, set[int]]:
    """By Dim all those that it is multiplied with along an axis of a weight."""
    factors: dict[int, set[int]] = defaultdict(set)
    names = dict.fromkeys(place.name for group in analysis.groups for place in group.places)
    for axis in dict.fromkeys(axis for name in names for axis in analysis.solution.resolve(name)):
        for a, b in _pairs(axis):
            if a in dims and b in dims and a != b:
                factors[a].add(b)
                factors[b].add(a)
    return factors


def _pairs(axis: Axis) -> Iterable[tuple[int, int]]:
    for term in axis.terms:
        parts = [{factor} if isinstance(factor, int) else set(factor.dims()) for factor in term]
        yield from ((a, b) for left, right in combinations(parts, 2) for a in left for b in right)
        for factor in term:
            if isinstance(factor, Axis):
                yield from _pairs(factor)
