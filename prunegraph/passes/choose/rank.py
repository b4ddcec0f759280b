"""Rank units by their scores, and keep the best."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.arrays import Mask
from prunegraph.passes.score.base import Scores

WHOLE_UNITS = ("head", "kv_group", "query_head", "expert")
"""Kinds whose numbers no hardware wants to be a multiple of anything."""

WIDTHS = ("channel",)
"""Kinds whose numbers kernels like as multiples: convolutions do, matrix products hardly care."""

WIDTH_MULTIPLE = 8
"""What widths are rounded up to by default: the floats of a 256-bit vector, and of a block of ONNX Runtime's NCHWc."""

WIDE = 4 * WIDTH_MULTIPLE
"""Narrower groups are not rounded: a multiple would be too coarse."""


def keep_after_ratio(units: int, ratio: float, align: int = 1) -> int:
    """How many units stay: the nearest number (of two equally near, the larger), at least one, in multiples of `align`.

    >>> [keep_after_ratio(12, r) for r in (0.0, 0.5, 0.99)], keep_after_ratio(3, 0.5)
    ([12, 6, 1], 2)
    >>> keep_after_ratio(64, 0.4, align=8)
    40
    """
    keep = max(1, units - math.ceil(ratio * units - 0.5))
    return min(units, math.ceil(keep / align) * align)


def aligned_count(group: Group, count: int, align: int) -> int:
    """A number of units that stay, rounded up to a multiple of `align` where the kind wants that, and at least `least`.

    Args:
        group: The group; it keeps no more than it has.
        count: How many would stay.
        align: The multiple.
    """
    multiple = 1 if group.kind in WHOLE_UNITS else align
    return min(group.units, max(group.least, math.ceil(count / multiple) * multiple))


def multiple_of(group: Group, align: int | None) -> int:
    """What numbers of units that stay of a group are multiples of.

    Args:
        group: The group.
        align: The multiple that is asked for; None: `WIDTH_MULTIPLE` for widths of at least `WIDE` units.
    """
    if align is not None:
        return 1 if group.kind in WHOLE_UNITS else align
    return WIDTH_MULTIPLE if group.kind in WIDTHS and group.units >= WIDE else 1


def rounded_count(group: Group, count: int, align: int | None) -> int:
    """A number of units that a ratio leaves, as the hardware likes it.

    Args:
        group: The group.
        count: How many would stay.
        align: The multiple to round up to; None: `WIDTH_MULTIPLE` for widths of at least `WIDE` units, unless that
            would keep the group whole.
    """
    if align is not None:
        return aligned_count(group, count, align)
    exact = aligned_count(group, count, 1)
    if group.kind not in WIDTHS or group.units < WIDE:
        return exact
    rounded = aligned_count(group, count, WIDTH_MULTIPLE)
    return rounded if rounded < group.units else exact


def is_slow(kind: str, before: int, after: int) -> bool:
    """Whether a width that was a multiple of what the hardware likes is none any more.

    >>> is_slow("channel", 64, 45), is_slow("channel", 64, 48), is_slow("channel", 12, 5), is_slow("head", 64, 45)
    (True, False, False, False)
    """
    return kind in WIDTHS and before >= WIDE and after % WIDTH_MULTIPLE > 0 == before % WIDTH_MULTIPLE


def global_counts(
    groups: Iterable[Group],
    scores: Mapping[str, Scores],
    ratio: Callable[[Group], float],
    least: Callable[[Group], int] = lambda group: group.least,
) -> dict[str, int]:
    """How many units stay of every group when all units of a kind are ranked together.

    Groups that are chosen row by row are left out: their rows keep equal numbers.  Ties go to the first.

    Args:
        groups: The groups to choose in.
        scores: By group id, comparable across groups of a kind.
        ratio: The fraction to remove.
        least: How many units stay at least.
    """
    by_kind: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if not group.rows:
            by_kind[group.kind].append(group)
    left: dict[str, int] = {}
    for members in by_kind.values():
        left |= {group.id: group.units for group in members}
        owner = np.repeat(np.arange(len(members)), [group.units for group in members])
        order = np.lexsort((-np.arange(len(owner)), np.concatenate([scores[group.id] for group in members])))
        remove = math.floor(sum(ratio(group) * group.units for group in members) + 0.5)
        for unit in order:
            name = members[owner[unit]].id
            if remove and left[name] > least(members[owner[unit]]) and ratio(members[owner[unit]]) > 0:
                left[name] -= 1
                remove -= 1
    return left


def even_counts(groups: Iterable[Group], counts: Mapping[str, int], align: int | None) -> dict[str, int]:
    """How many units stay where groups of one kind that are equally large keep equally many: the mean, rounded.

    Args:
        groups: The groups that get smaller.
        counts: By group id, how many units of each would stay.
        align: See `rounded_count`.
    """
    alike: dict[tuple[str, tuple[int, ...]], list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.kind, group.shape].append(group)
    even: dict[str, int] = {}
    for members in alike.values():
        kept = [counts[group.id] for group in members]
        if len(set(kept)) == 1:
            even |= dict.fromkeys((group.id for group in members), kept[0])
            continue
        mean = max(1, math.floor(sum(kept) / len(kept) + 0.5))
        number = max(rounded_count(group, mean, align) for group in members)
        even |= dict.fromkeys((group.id for group in members), number)
    return even


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
