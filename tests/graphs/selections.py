"""Random choices of what stays, for the laws: by hypothesis, or by a generator of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import strategies as st

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection


def fewest(group: Group, least: int = 1) -> int:
    """Inexact groups keep two: a norm over one slot multiplies its rounding by 1/sqrt(epsilon)."""
    return max(least, group.least, 1 if group.exact else 2)


@st.composite
def selections(draw: st.DrawFn, groups: Sequence[Group], least: int = 1) -> Selection:
    """Any number of units, at least `least`, of any groups; the same number in every row."""
    keep = {}
    for group in groups:
        lowest = fewest(group, least)
        if group.units > lowest and draw(st.booleans()):
            count = draw(st.integers(lowest, group.units - 1))
            rows = [draw(st.permutations(range(group.units))) for _ in range(int(np.prod(group.rows)))]
            keep[group.id] = (np.array(rows) < count).reshape(group.shape)
    return Selection(keep)


def part(group: Group, rng: np.random.Generator) -> np.ndarray:
    """Any number of units, in every row others; all where none can go."""
    lowest = fewest(group)
    count = int(rng.integers(lowest, group.units)) if group.units > lowest else group.units
    return rng.random(group.shape).argsort(-1).argsort(-1) < count


def parts(groups: Sequence[Group], rng: np.random.Generator) -> Iterator[Selection]:
    """A part of each group alone, then of all of them."""
    yield from (Selection({group.id: part(group, rng)}) for group in groups)
    yield Selection({group.id: part(group, rng) for group in groups})
