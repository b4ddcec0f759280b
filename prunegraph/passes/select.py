"""Select: from scores and ratios to what stays."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analysis.sizes import Mask
from prunegraph.passes.score.base import Scores

WHOLE_UNITS = ("head", "kv_group", "query_slot")
"""Kinds whose numbers no hardware wants to be a multiple of anything."""


def chosen(groups: Iterable[Group], include: Sequence[str], exclude: Sequence[str]) -> list[Group]:
    """Groups whose id or scope matches a pattern of `include` (any, if empty) and none of `exclude`."""

    def matches(group: Group, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in (group.id, group.scope))

    return [g for g in groups if (not include or matches(g, include)) and not matches(g, exclude)]


def kept_count(units: int, ratio: float, align: int = 1) -> int:
    """How many units stay: the nearest number (of two equally near, the larger), at least one, in multiples of `align`.

    >>> [kept_count(12, r) for r in (0.0, 0.5, 0.99)], kept_count(3, 0.5)
    ([12, 6, 1], 2)
    >>> kept_count(64, 0.4, align=8)
    40
    """
    keep = max(1, units - math.ceil(ratio * units - 0.5))
    return min(units, math.ceil(keep / align) * align)


def select(groups: Iterable[Group], scores: Mapping[str, Scores], keep: Mapping[str, int]) -> Selection:
    """Keep the best units of every group; ties go to the first.

    Args:
        groups: The groups to choose in.
        scores: By group id, an array of the group's shape.
        keep: By group id, how many units stay (in every row).
    """
    return Selection({g.id: _best(scores[g.id], keep[g.id]) for g in groups if keep[g.id] < g.units})


def _best(scores: Scores, count: int) -> Mask:
    order = np.argsort(-scores, axis=-1, kind="stable")
    mask = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(mask, order[..., :count], True, axis=-1)
    return mask
