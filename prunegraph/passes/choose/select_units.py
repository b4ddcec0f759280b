"""Choose units: which groups get smaller and by how much, and which of their units stay."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import check_patterns, matches
from prunegraph.analysis.selection import Selection
from prunegraph.errors import UsageError
from prunegraph.passes.choose.budget import cost, totals
from prunegraph.passes.choose.nothing_to_prune import missing_kinds, nothing_to_prune, say_missing
from prunegraph.passes.choose.products import beside_another
from prunegraph.passes.choose.rank import even_counts, global_counts, rounded_count, select
from prunegraph.passes.choose.request import Amount, Scope
from prunegraph.passes.choose.targets import ByScorer, Kept, Ranked, Target, resolve_targets
from prunegraph.passes.choose.whole_layers import DROPPED_KINDS, dropped, names_of
from prunegraph.passes.normalize import Normalized
from prunegraph.passes.score import Context, KindScorers, Scores

logger = logging.getLogger(__name__)

_EXPLAIN = "`prunegraph explain` shows groups; with --json, the id and the scope of each"


@dataclass(frozen=True, slots=True)
class Targets:
    """How much of every group shall stay.

    Attributes:
        of_group: By id of every group that gets smaller, or may.
        whole: The ids of groups that shall go whole.
        amount: What was asked for.
    """

    of_group: Mapping[str, Target]
    whole: tuple[str, ...]
    amount: Amount

    @property
    def kept(self) -> dict[str, int]:
        """By group id how many units stay, where the caller says so: all but where the scorer decides."""
        return {name: each.units for name, each in self.of_group.items() if not isinstance(each, ByScorer)}


def choose_targets(
    analysis: Analysis, normalized: Normalized, amount: Amount, scope: Scope, scorers: KindScorers
) -> Targets:
    """Which groups get smaller, and how much of each shall stay.

    Raises:
        NothingToPrune: no group is left that could get smaller.
        UsageError: a pattern matches no group, an amount does not fit the model, or a budget cannot be met.
    """
    groups = analysis.groups
    amount = amount.in_fractions(totals(analysis, normalized)) if amount.budget else amount
    check_patterns([*scope.include, *scope.exclude], [n for g in groups for n in g.names], "group", hint=_EXPLAIN)
    among = {group.id for group in groups if in_scope(group, scope)}
    alone = _left_alone(analysis, amount, among)
    of_group = resolve_targets(groups, amount, scorers, cost(analysis, normalized), among, alone)
    whole = _dropped_ids(groups, amount)
    if not of_group and not whole:
        raise nothing_to_prune(analysis, amount)
    if missing := missing_kinds(groups, amount):
        logger.warning("%s", say_missing(groups, missing))
    return Targets(of_group, whole, amount)


def _left_alone(analysis: Analysis, amount: Amount, among: Collection[str]) -> Collection[str]:
    """The groups that one ratio does not take since it takes others that they are multiplied with; the log names them.

    Whoever names kinds, patterns or kept numbers means all of them.
    """
    if not amount.plain_ratio or amount.kinds:
        return ()
    by_default = [g for g in analysis.groups if g.id in among and amount.by_default(g.kind, g.exact)]
    beside = beside_another(analysis, by_default)
    if beside:
        listed = ", ".join(f"{name} (beside {other})" for name, other in list(beside.items())[:3])
        more = f" and {len(beside) - 3} more" if len(beside) > 3 else ""
        logger.warning(
            "one ratio takes one factor of what is multiplied along an axis, such as the groups or the widths of a "
            "grouped convolution, and leaves alone %s%s; a ratio for the kind or the group takes it, too",
            listed,
            more,
        )
    return beside


def in_scope(group: Group, scope: Scope) -> bool:
    """Whether the id or scope of a group matches a pattern of `include` (any, if empty) and none of `exclude`."""
    return (not scope.include or matches(group.names, scope.include)) and not matches(group.names, scope.exclude)


def _dropped_ids(groups: Sequence[Group], amount: Amount) -> tuple[str, ...]:
    """The ids of the groups that shall go whole.

    Raises:
        UsageError: a pattern matches no group that can go whole.
    """
    names = [name for group in groups if group.kind in DROPPED_KINDS for name in names_of(group)]
    hint = f"whole groups of {', '.join(DROPPED_KINDS)} can go; `prunegraph explain --json` shows their ids and scopes"
    check_patterns(amount.drop, names, "group to drop", hint=hint)
    return tuple(group.id for group in dropped(groups, amount.drop))


def rank_and_keep(
    groups: Sequence[Group], targets: Targets, scores: Mapping[str, Scores], scorers: KindScorers, context: Context
) -> Selection:
    """Keep the best units of every group, or the best of all groups of a kind where they are ranked together.

    Args:
        groups: All groups of the model.
        targets: How much of which stays.
        scores: By group id an array of the group's shape, high for what should stay.
        scorers: They say how much stays where the caller does not.
        context: What these were given.

    Raises:
        UsageError: there are no scores of a group.
    """
    smaller = [group for group in groups if group.id in targets.of_group]
    _check_scores(smaller, scores)
    kept = {name: target.units for name, target in targets.of_group.items() if isinstance(target, Kept)}
    kept |= _ranked_counts(smaller, targets, scores)
    free = [group for group in smaller if isinstance(targets.of_group[group.id], ByScorer)]
    kept |= {group.id: group.units for group in free}
    for scorer, members in scorers.shares(free).items():
        kept |= scorer.counts(members, context.of(scorer))
    if targets.amount.uniform:
        kept = even_counts(smaller, kept, targets.amount.align)
    return select(smaller, scores, kept)


def _ranked_counts(groups: Sequence[Group], targets: Targets, scores: Mapping[str, Scores]) -> dict[str, int]:
    ranked = {name: target for name, target in targets.of_group.items() if isinstance(target, Ranked)}
    counts = global_counts(
        [group for group in groups if group.id in ranked],
        scores,
        lambda group: ranked[group.id].ratio,
        lambda group: ranked[group.id].least,
    )
    by_id = {group.id: group for group in groups}
    return {name: rounded_count(by_id[name], count, targets.amount.align) for name, count in counts.items()}


def _check_scores(groups: Collection[Group], scores: Mapping[str, Scores]) -> None:
    for group in groups:
        if group.id not in scores:
            hint = "score the groups that shall get smaller, or give an amount of those that are scored"
            raise UsageError(f"there are no scores of {group.id}", hint=hint)
        if scores[group.id].shape != group.shape:
            raise UsageError(
                f"{group.id} has the shape {group.shape}, its scores {scores[group.id].shape}",
                hint="give one number for every unit",
            )
