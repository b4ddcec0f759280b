"""Targets: from what was asked to one answer a group, worked out once; everything after reads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import matches
from prunegraph.errors import UsageError
from prunegraph.passes.choose.amounts import is_pattern
from prunegraph.passes.choose.rank import aligned_count, keep_after_ratio, rounded_count
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.score import KindScorers

T = TypeVar("T", int, float)

Cost = Callable[[Mapping[str, int]], Mapping[str, float]]
"""From kept numbers by group id (others whole) to what is left of "macs", "params" and "bytes", as fractions."""

_STEPS = 30


@dataclass(frozen=True, slots=True)
class Kept:
    """So many units stay (in every row)."""

    units: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """This fraction of all groups of the kind goes together, and units are ranked across them.

    Attributes:
        ratio: The fraction of this group that goes into the common number.
        least: How many units stay at least.
        units: How many stayed if the fraction held in this group alone.
    """

    ratio: float
    least: int
    units: int


@dataclass(frozen=True, slots=True)
class ByScorer:
    """The scorer itself says how many units stay."""


Target = Kept | Ranked | ByScorer


def resolve_targets(
    groups: Sequence[Group],
    amount: Amount,
    scorers: KindScorers,
    cost: Cost,
    among: Collection[str] | None = None,
    alone: Collection[str] = (),
) -> dict[str, Target]:
    """By id of every group that gets smaller, or may, how many units of it stay and who says so.

    Args:
        groups: All groups of the model, in order.
        amount: What the caller asked for.
        scorers: Some of them decide themselves how much stays, where the caller gives no amount.
        cost: For a budget.
        among: The ids of groups that may get smaller; all if None.
        alone: The ids of groups that one ratio for all kinds leaves alone, see `products.beside_another`.

    Raises:
        UsageError: an amount does not fit the model, or a budget cannot be met.
    """
    _check_fit(groups, amount)
    numbers = _kept_numbers(groups, amount)
    own = _by_group(groups, amount.ratios, "ratio")
    asked_of_all = bool(amount.budget) or isinstance(amount.ratio, (int, float))
    only_own = amount.ratio is None and scorers.every is not None and scorers.every.decides
    plain = bool(amount.plain_ratio) and not only_own  # nobody asked for less of what the scorer does not decide
    targets: dict[str, Target] = {}
    shared: list[Group] = []  # what a budget finds one ratio for
    for group in groups:
        if among is not None and group.id not in among:
            continue
        scorer = scorers.of(group.kind)
        by_default = amount.by_default(group.kind, group.exact)
        if group.id in numbers:
            targets[group.id] = Kept(aligned_count(group, numbers[group.id], amount.align or 1))
        elif group.id in own:
            targets[group.id] = _by_ratio(group, own[group.id], amount, scorer.comparable)
        elif scorer.decides and group.exact and not asked_of_all:
            targets[group.id] = ByScorer()
        elif amount.budget and by_default:
            shared.append(group)
        elif by_default and plain and group.id not in alone:
            targets[group.id] = _by_ratio(group, amount.plain_ratio, amount, scorer.comparable)
    if amount.budget:
        fixed = {name: target.units for name, target in targets.items() if isinstance(target, (Kept, Ranked))}
        within = _within(shared, fixed, amount, cost)
        targets |= {group.id: Kept(within[group.id]) for group in shared}
    units = {group.id: group.units for group in groups}
    return {
        group.id: targets[group.id]
        for group in groups
        if group.id in targets and targets[group.id] != Kept(units[group.id])
    }


def _by_ratio(group: Group, ratio: float, amount: Amount, comparable: bool) -> Target:
    count = rounded_count(group, keep_after_ratio(group.units, ratio), amount.align)
    across = (comparable if amount.rank is None else amount.rank == "global") and not amount.uniform
    if not across or group.rows or not ratio or amount.budget:
        return Kept(count)
    return Ranked(ratio, max(group.least, math.ceil(amount.least * group.units)), count)


def _kept_numbers(groups: Sequence[Group], amount: Amount) -> dict[str, int]:
    """By group id the kept number, where the caller gives one.

    Raises:
        UsageError: see `_by_group`; or more is kept than there is.
    """
    numbers = _by_group(groups, amount.keep, "number")
    for group in groups:
        if numbers.get(group.id, 0) > group.units:
            hint = f"keep at most {group.units}"
            raise UsageError(f"{group.id} has {group.units} units: {numbers[group.id]} cannot stay", hint=hint)
    return numbers


def _within(shared: Sequence[Group], fixed: Mapping[str, int], amount: Amount, cost: Cost) -> dict[str, int]:
    """One ratio for all these groups, the smallest that meets the budget; of its last step only what is needed."""

    def at(ratio: float) -> dict[str, int]:
        counts = {g.id: rounded_count(g, keep_after_ratio(g.units, ratio), amount.align) for g in shared}
        return {**fixed, **counts}

    def over(counts: Mapping[str, int]) -> float:
        left = cost(counts)
        return max(left[name] - limit for name, limit in amount.budget.items())

    low, high = 0.0, 1.0 - 1e-9
    if over(at(low)) <= 0:
        return at(low)
    if over(at(high)) > 0:
        left = ", ".join(f"{cost(at(high))[name]:.3f} of {name}" for name in amount.budget)
        hint = "raise the budget, or let more kinds be pruned: kinds=…, --kind KIND (hidden, qk_dim, v_dim)"
        raise UsageError(f"the budget cannot be met: with one unit left of every group there are {left}", hint=hint)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if over(at(middle)) > 0 else (low, middle)
    if amount.uniform:
        return at(high)
    counts, least = at(low), at(high)
    for group in shared:
        if over(counts) <= 0:
            break
        counts[group.id] = least[group.id]
    return counts


def _by_group(groups: Sequence[Group], given: Mapping[str, T | Sequence[T]], what: str) -> dict[str, T]:
    """By group id; patterns win over kinds, and later ones over earlier ones.

    Raises:
        UsageError: a list has another length than there are groups, or a pattern matches none.
    """
    values: dict[str, T] = {}
    for key in sorted(given, key=is_pattern):
        value = given[key]
        members = [group for group in groups if _is_meant(group, key)]
        if not members and is_pattern(key):
            hint = "`prunegraph explain` shows groups; with --json, the id and the scope of each"
            raise UsageError(f"no group matches {key!r}", hint=hint)
        if isinstance(value, Sequence):
            if len(value) != len(members):
                ends = f" ({members[0].id} to {members[-1].id})" if members else ""
                hint = f"give {len(members)}, one for each group in the order of the graph{ends}; or one for all"
                raise UsageError(
                    f"{len(value)} {what}s are given for {key}, and the model has {len(members)} such groups", hint=hint
                )
            values |= {group.id: each for group, each in zip(members, value, strict=True)}
        else:
            values |= {group.id: value for group in members}
    return values


def _is_meant(group: Group, key: str) -> bool:
    return matches(group.names, [key]) if is_pattern(key) else group.kind == key


def _check_fit(groups: Iterable[Group], amount: Amount) -> None:
    """Check that the model is the one that a preset is for.

    Raises:
        UsageError: it has other groups.
    """
    everything = list(groups)
    for kind, shape in amount.fits.items():
        shapes = {group.shape for group in everything if group.kind == kind}
        if shapes != {tuple(shape)}:
            there = ", ".join("x".join(map(str, s)) for s in sorted(shapes)) or "none"
            hint = "presets fit the models that they were published for; give ratios of your own for another"
            expected = "x".join(map(str, shape))
            raise UsageError(
                f"the preset is for {kind} groups of {expected} units, and the model has {there}", hint=hint
            )
