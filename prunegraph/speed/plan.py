"""A plan: of every block one level, so that the time fits, all budgets are kept and the harm is least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.arrays import Floats
from prunegraph.errors import UsageError
from prunegraph.passes.choose.allocate import Level, allocate
from prunegraph.passes.choose.rank import multiple_of
from prunegraph.passes.choose.targets import Cost
from prunegraph.speed.harm import Harms
from prunegraph.speed.times import Times

STEP = 16
"""Units between two levels of a wide group: well under 1 % of the time each."""

NARROW = 64
"""Groups of no more units have a level for every unit that may stay."""

RAISES, HALVINGS = 12, 10


@dataclass(frozen=True, slots=True)
class Options:
    """The levels of one block that are worth having, without those that are both slower and more harmful.

    Attributes:
        kept: `[levels, groups]`, how many units of every group of the block stay.
        time: `[levels]`, the share of the original's time that a level takes beyond the block at its smallest.
        harm: `[levels]`.
        costs: By budget, `[levels]`: the share of the whole model that a level costs.
    """

    groups: tuple[Group, ...]
    kept: Floats
    time: Floats
    harm: Floats
    costs: Mapping[str, Floats]


class Planner:
    """Makes plans from tables of time and harm."""

    def __init__(
        self,
        times: Times,
        harms: Harms,
        cost: Cost,
        budgets: Mapping[str, float],
        align: int | None,
        inner: bool = True,
    ) -> None:
        """Make the levels of every block.

        Args:
            times: What cuts save.
            harms: What they do.
            cost: From kept numbers to what is left of "macs", "params" and "bytes".
            budgets: What may be left of them at most, as fractions.
            align: See `Amount`.
            inner: Whether dims inside of units may go.
        """
        self.times, self.cost, self.budgets = times, cost, budgets
        self.options = {name: _options(name, times, harms, cost, budgets, align, inner) for name in times.blocks}
        self.most = 1 - times.least

    def plan(self, removal: float) -> dict[str, int]:
        """By group id how many units stay, of those that get smaller, where so much of the time is to be saved.

        Raises:
            UsageError: even with everything at its smallest a budget is not kept.
        """
        prices = dict.fromkeys(self.budgets, 0.0)
        counts = self._cheapest(removal, prices)
        for name, limit in self.budgets.items():
            if self.cost(counts)[name] <= limit:
                continue
            low, high = 0.0, 1e-6
            for _ in range(RAISES):
                counts = self._cheapest(removal, {**prices, name: high})
                if self.cost(counts)[name] <= limit:
                    break
                low, high = high, high * 16
            else:
                left = self.cost(counts)[name]
                hint = "raise the budget, or let more kinds be pruned: kinds=…, --kind KIND"
                raise UsageError(f"the budget cannot be met: there are {left:.3f} of {name} left at least", hint=hint)
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                tried = self._cheapest(removal, {**prices, name: middle})
                if self.cost(tried)[name] <= limit:
                    high, counts = middle, tried
                else:
                    low = middle
            prices[name] = high
        return counts

    def _cheapest(self, removal: float, prices: Mapping[str, float]) -> dict[str, int]:
        """The plan of least harm within the time, where what else it costs has a price."""
        budget = max(1 - removal - self.times.least, 1e-6)
        items: dict[str, list[Level]] = {}
        rows: dict[str, Floats] = {}
        for name, options in self.options.items():
            total = options.harm + sum((price * options.costs[what] for what, price in prices.items()), np.zeros(()))
            rows[name] = options.kept[_worth(options.time, total)]
            items[name] = [
                Level(str(row), float(options.time[k]), float(total[k]))
                for row, k in enumerate(_worth(options.time, total))
            ]
        chosen = allocate(items, budget)
        kept: dict[str, int] = {}
        for name, level in chosen.items():
            counts = rows[name][int(level.name)]
            for group, count in zip(self.options[name].groups, counts, strict=True):
                if count < group.units and (group is self.options[name].groups[0] or counts[0] > 0):
                    kept[group.id] = int(count)
        return kept


def _options(
    name: str,
    times: Times,
    harms: Harms,
    cost: Cost,
    budgets: Mapping[str, float],
    align: int | None,
    inner: bool,
) -> Options:
    timed = times.blocks[name]
    groups = timed.block.groups
    numbers = [_numbers(group, harms[group.id], align) for group in groups]
    if not inner:
        numbers = [numbers[0], *([group.units] for group in groups[1:])]
    grid = np.meshgrid(*numbers, indexing="ij")
    kept = np.stack([axis.reshape(-1) for axis in grid], axis=-1).astype(np.float64)
    saved = timed.saved(*kept.T)
    smallest = timed.of(timed.block.smallest)
    time = np.maximum(smallest - saved, 0.0)
    harm = np.zeros(len(kept))
    for column, group in enumerate(groups):
        known = sorted(harms[group.id].items())
        line = np.interp(kept[:, column], [count for count, _ in known], [value for _, value in known])
        harm += line if column == 0 else np.where(kept[:, 0] > 0, line, 0.0)
    return Options(groups, kept, time, harm, _costs(groups, kept, cost, budgets))


def _costs(groups: Sequence[Group], kept: Floats, cost: Cost, budgets: Mapping[str, float]) -> dict[str, Floats]:
    """By budget what the levels of a block cost, along straight lines: what is saved inside goes with the units."""
    costs = {name: np.ones(len(kept)) for name in budgets}
    for column, group in enumerate(groups if budgets else ()):
        removed_share = (group.units - kept[:, column]) / max(group.units - group.least, 1)
        least_left = cost({group.id: group.least})
        units = 1.0 if column == 0 else kept[:, 0] / groups[0].units
        for name in budgets:
            costs[name] = costs[name] - (1 - least_left[name]) * removed_share * units
    return costs


def _numbers(group: Group, harms: Mapping[int, float], align: int | None) -> list[int]:
    """The kept numbers that a plan may choose: those that were measured, and between them steps of a few units."""
    counts = sorted(harms)
    step = max(1 if group.units <= NARROW else STEP, multiple_of(group, align))
    between = {
        count for low, high in pairwise(counts) if low > 0 for count in range(-(-low // step) * step, high, step)
    }
    return sorted({*counts, *(count for count in between if count > 0)})


def _worth(time: Floats, harm: Floats) -> list[int]:
    """Positions of levels that nothing beats that is no slower, the slowest last."""
    order = np.lexsort((harm, time))
    best, worth = np.inf, list[int]()
    for k in order:
        if harm[k] < best:
            worth.append(int(k))
            best = harm[k]
    return worth
