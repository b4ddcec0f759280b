"""A local search around a plan: units change places, and a change stays only where held-out examples gain, too.

On a few hundred examples a search fits noise: what it gains on those that it looks at it need not gain on others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from prunegraph.observe.divergence import Outputs
from prunegraph.speed.times import Times

STEPS = (1 / 6, 1 / 12, 1 / 24)
"""Shares of the units of a group that change places at a time."""

TRIES = 3
"""Draws that may lead nowhere for every plan that is tried."""


@dataclass(frozen=True, slots=True)
class Refined:
    """What a search found.

    Attributes:
        counts: By group id how many units stay.
        tried: How many plans were looked at.
        before: Harm of the plan on the held-out examples.
        after: That of the result.
    """

    counts: dict[str, int]
    tried: int
    before: float
    after: float

    def to_dict(self) -> dict[str, float]:
        """The fields as JSON writes them."""
        return {"before": self.before, "after": self.after, "tried": float(self.tried)}


def local_search(
    counts: Mapping[str, int],
    times: Times,
    harms: Callable[[Mapping[str, int]], tuple[float, float]],
    seconds: float,
    *,
    align: int = 1,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Refined:
    """Let units change places between blocks at equal time as long as there is time.

    Args:
        counts: The plan, by group id.
        times: What every block saves.
        harms: From a plan to its harm on the examples that are looked at, and on those that are held out.
        seconds: No new plan is looked at after this time.
        align: What numbers of units are multiples of.
        seed: Of the draws.
        clock: Seconds, monotonic.
    """
    rng, begin = np.random.default_rng(seed), clock()
    best, budget = dict(counts), times.left(counts)
    harm, held_out_harm = harms(best)
    first, tried, idle = held_out_harm, 0, 0
    while clock() - begin < seconds and idle < TRIES * 100:
        candidate = _moved(best, times, budget, rng, align)
        if candidate is None or candidate == best:
            idle += 1
            continue
        idle, tried = 0, tried + 1
        new_harm, new_held_out = harms(candidate)
        if new_harm < harm and new_held_out < held_out_harm:
            best, harm, held_out_harm = candidate, new_harm, new_held_out
    return Refined(best, tried, first, held_out_harm)


def _moved(
    counts: Mapping[str, int], times: Times, budget: float, rng: np.random.Generator, align: int
) -> dict[str, int] | None:
    """A plan with fewer units of one block and as many more of another as fit the time; None where there is none."""
    names = list(times.blocks)
    if len(names) < 2:
        return None
    less, more = (times.blocks[names[k]].block for k in rng.choice(len(names), 2, replace=False))
    fewer = counts.get(less.main.id, less.main.units) - _step(less.main.units, rng, align)
    if fewer < max(less.least, 1) or counts.get(more.main.id, 1) == 0:
        return None
    candidate = {**counts, less.main.id: fewer}
    count = candidate.get(more.main.id, more.main.units)
    while count + align <= more.main.units:
        wider = {**candidate, more.main.id: count + align}
        if times.left(wider) > budget:
            break
        candidate, count = wider, count + align
    return candidate if count > counts.get(more.main.id, more.main.units) else None


def _step(units: int, rng: np.random.Generator, align: int) -> int:
    return max(1, round(units * float(rng.choice(STEPS)) / align)) * align


def held_out(outputs: Outputs) -> tuple[Outputs, Outputs]:
    """The examples that are looked at and those that are held out: every other batch."""
    parts = []
    for start in (0, 1):
        references = tuple(replace(r, rows=r.rows[start::2], whole=r.whole[start::2]) for r in outputs.references)
        parts.append(replace(outputs, batches=outputs.batches[start::2], references=references))
    return parts[0], parts[1]
