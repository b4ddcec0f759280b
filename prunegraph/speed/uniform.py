"""One ratio for all groups of a kind, in steps of one unit of one group rather than of one unit of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.errors import NothingToPrune, UsageError
from prunegraph.graph import Graph
from prunegraph.passes.choose.budget import totals
from prunegraph.passes.choose.rank import multiple_of, select
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.choose.targets import Cost, Kept

MOST = 0.999
"""The largest ratio: one unit stays."""

HALVINGS = 20


class OneRatio:
    """Plans of one ratio for everything that may go by default, within all budgets."""

    def __init__(self, graph: Graph, scores: Scores, amount: Amount, cost: Cost) -> None:
        """Plan for a model.

        Args:
            graph: The analysed model.
            scores: Of its groups.
            amount: What was asked for; a ratio takes the place of the speed.
            cost: From kept numbers to what is left of "macs", "params" and "bytes".
        """
        self.graph, self.scores, self.cost = graph, scores, cost
        fractions = amount.in_fractions(totals(graph.analysis, graph.normalized)) if amount.budget else amount
        self.budgets: Mapping[str, float] = fractions.budget
        self.plain = Amount(
            kinds=amount.kinds, align=amount.align, rank=amount.rank, uniform=amount.uniform, least=amount.least
        )
        self.most = MOST

    def at(self, removal: float) -> Selection:
        """What stays where this fraction goes, or as much more as the budgets ask for.

        Args:
            removal: In [0, 1].
        """
        return self._at(max(removal, self._for_budgets))

    def best(self, counts: Mapping[str, int]) -> Selection:
        """The best units of every group that is named; the others stay whole.

        Args:
            counts: By group id how many units stay.
        """
        return select([group for group in self.graph.groups if group.id in counts], self.scores, counts)

    def _at(self, removal: float) -> Selection:
        if self._spread is not None:
            return self.best(spread_counts(self._spread, min(removal, MOST), self.plain.align))
        try:
            targets = self.graph.targets(replace(self.plain, ratio=min(removal, MOST)), self.scores.scorers)
        except NothingToPrune:  # too little to take a single unit
            return Selection({})
        return self.graph.select(self.scores, targets)

    @cached_property
    def _spread(self) -> list[Group] | None:
        """The groups that get smaller; None where scorers rank across groups, or all layers keep equally many."""
        if self.plain.uniform:
            return None
        targets = self.graph.targets(replace(self.plain, ratio=0.5), self.scores.scorers).of_group
        if not all(isinstance(target, Kept) for target in targets.values()):
            return None
        return [group for group in self.graph.groups if group.id in targets]

    @cached_property
    def _for_budgets(self) -> float:
        """The smallest ratio that keeps all budgets.

        Raises:
            UsageError: none does.
        """
        if not self.budgets or self._kept(0.0):
            return 0.0
        low, high = 0.0, MOST
        if not self._kept(high):
            hint = "raise the budget, or let more kinds be pruned: kinds=…, --kind KIND (hidden, qk_dim, v_dim)"
            raise UsageError("the budget cannot be met, even with one unit left of every group", hint=hint)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._kept(middle) else (middle, high)
        return high

    def _kept(self, removal: float) -> bool:
        left = self.cost(self._at(removal).counts(self.graph.groups))
        return all(left[name] <= limit for name, limit in self.budgets.items())


def spread_counts(groups: Sequence[Group], removal: float, align: int | None) -> dict[str, int]:
    """How many units stay of every group where a fraction of all goes.

    What rounding takes too much of one group it takes less of the next that is alike, so that a small change of the
    fraction changes one group, and never all at once.

    Args:
        groups: What gets smaller.
        removal: The fraction that goes, in [0, 1].
        align: See `Amount`.
    """
    by_kind: dict[tuple[str, int], list[Group]] = defaultdict(list)
    for group in groups:
        by_kind[group.kind, group.units].append(group)
    counts: dict[str, int] = {}
    for members in by_kind.values():
        owed = 0.0
        for group in members:
            step = multiple_of(group, align)
            target = group.units * (1 - removal) + owed
            count = min(group.units, max(group.least, 1, round(target / step) * step))
            owed = min(max(target - count, -step), step)
            counts[group.id] = count
    return {group.id: counts[group.id] for group in groups}
