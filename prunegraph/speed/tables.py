"""Two tables that a plan is made from: what every cut saves, measured in the model, and what it does to the outputs.

Time is measured for all alike groups at once, cut to the same level, beside the original; the savings of all are scaled
to what the model at its smallest saves, since savings that were measured one by one add up to more than there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.passes.choose.allocate import Level
from prunegraph.passes.choose.rank import rounded_count, select
from prunegraph.passes.score.base import Scores

SHARES = (0.75, 0.5, 0.25, 0.125, 0.0)
"""Levels of a group: what stays of its units, the last one as little as may be."""

Measure = Callable[[Selection], float]
"""What is left of the original's time, or how far the outputs are from the original's."""

Counts = Mapping[str, int]


def levels_of(group: Group, align: int | None) -> tuple[int, ...]:
    """The kept numbers that are tried of a group, all of it first."""
    tried = [rounded_count(group, max(group.least, 1, round(share * group.units)), align) for share in SHARES]
    return tuple(dict.fromkeys((group.units, *tried)))


def keep_best(groups: Sequence[Group], scores: Mapping[str, Scores], kept: Counts) -> Selection:
    """The best units of every group that is named; the others stay whole."""
    return select([group for group in groups if group.id in kept], scores, kept)


def time_table(
    groups: Sequence[Group], scores: Mapping[str, Scores], align: int | None, time_left: Measure
) -> dict[str, dict[int, float]]:
    """By group id and kept number, the share of the original's time that the group takes at that level.

    Args:
        groups: What may get smaller.
        scores: By group id.
        align: See `levels_of`.
        time_left: The share of the original's time that a selection takes, measured.
    """
    alike: dict[tuple[str, tuple[int, ...]], list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.kind, group.shape].append(group)
    saved: dict[str, dict[int, float]] = {}
    for members in alike.values():
        levels = levels_of(members[0], align)
        savings = [0.0]
        for count in levels[1:]:
            left = time_left(keep_best(members, scores, {group.id: count for group in members}))
            savings.append(max(savings[-1], 1 - left))
        each = {count: saving / len(members) for count, saving in zip(levels, savings, strict=True)}
        saved |= {group.id: each for group in members}
    least = {name: min(each) for name, each in saved.items()}
    together = 1 - time_left(keep_best(groups, scores, least))
    alone = sum(saved[name][count] for name, count in least.items())
    scale = together / alone if alone > 0 else 1.0
    return {
        name: {count: scale * (each[least[name]] - saving) for count, saving in each.items()}
        for name, each in saved.items()
    }


def harm_table(
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    align: int | None,
    harm: Measure,
    progress: Callable[[int], None] | None = None,
) -> dict[str, dict[int, float]]:
    """By group id and kept number, how far the outputs are from the original's where this group alone is cut.

    Args:
        groups: What may get smaller.
        scores: By group id.
        align: See `levels_of`.
        harm: Of a selection, re-fitted.
        progress: Called with how many levels are done.
    """
    table: dict[str, dict[int, float]] = {}
    done = 0
    for group in groups:
        whole, *rest = levels_of(group, align)
        table[group.id] = {whole: 0.0}
        for count in rest:
            worse = harm(keep_best([group], scores, {group.id: count}))
            table[group.id][count] = max(worse, *table[group.id].values())
            done += 1
            if progress is not None:
                progress(done)
    return table


def items_of(
    times: Mapping[str, Mapping[int, float]], harms: Mapping[str, Mapping[int, float]], steps: int = 8
) -> dict[str, list[Level]]:
    """Levels for `allocate`: those that were measured and, between them, kept numbers on a line."""
    items: dict[str, list[Level]] = {}
    for name, each in times.items():
        counts = sorted(each)
        between = sorted(
            {round(count) for a, b in pairwise(counts) for count in np.linspace(a, b, steps + 1)} | {*counts}
        )
        time = np.interp(between, counts, [each[count] for count in counts])
        harm = np.interp(between, counts, [harms[name][count] for count in counts])
        items[name] = [Level(str(count), float(t), float(h)) for count, t, h in zip(between, time, harm, strict=True)]
    return items
