"""How much goes where: of every item one level, so that the time fits and the harm is least, by dynamic programming.

The multiple-choice knapsack problem, as ZipLM (arXiv 2302.04089) and Kwon et al. (arXiv 2204.09656) use it for pruning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunegraph.errors import UsageError

BUCKETS = 10_000
"""Steps that the time is counted in: a plan may exceed its budget by less than one step an item, 0.01 % each."""

TIE = 1e-12
"""What the whole budget counts as harm: nothing, but between equal plans."""


@dataclass(frozen=True, slots=True)
class Level:
    """One way to cut an item.

    Attributes:
        name: What stays.
        time: What it costs, in any unit.
        harm: What it does to the model's outputs, at least 0.
    """

    name: str
    time: float
    harm: float


def allocate(items: Mapping[str, Sequence[Level]], budget: float) -> dict[str, Level]:
    """One level of every item, of least summed harm among those whose summed time is within the budget.

    Of equal plans the faster one is taken.

    Args:
        items: By name, the levels of a sub-block; each has at least one.
        budget: What all may cost together, in the unit of the levels.

    Raises:
        UsageError: even the fastest levels cost more.
    """
    fastest = sum(min(level.time for level in levels) for levels in items.values())
    if fastest > budget:
        hint = f"allow {fastest / budget:.2f} times as much, or let more kinds be pruned"
        raise UsageError("no plan is that fast: everything at its smallest takes longer", hint=hint)
    step = budget / BUCKETS
    least = np.zeros(BUCKETS + 1)
    chosen: list[np.ndarray[tuple[int], np.dtype[np.intp]]] = []
    for levels in items.values():
        options = np.full((len(levels), BUCKETS + 1), np.inf)
        for row, level in enumerate(levels):
            steps = int(level.time / step)
            if steps <= BUCKETS:
                options[row, steps:] = least[: BUCKETS + 1 - steps] + level.harm + TIE * level.time / budget
        chosen.append(options.argmin(axis=0))
        least = options.min(axis=0)
    left, plan = BUCKETS, dict[str, Level]()
    for (name, levels), choice in reversed(list(zip(items.items(), chosen, strict=True))):
        plan[name] = levels[choice[left]]
        left -= int(plan[name].time / step)
    return {name: plan[name] for name in items}
