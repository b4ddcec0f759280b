"""From ratios, kept numbers and budgets to how many units stay of every group."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import matches
from prunegraph.errors import UsageError
from prunegraph.passes.choose.amounts import is_pattern
from prunegraph.passes.choose.rank import WHOLE_UNITS, keep_after_ratio
from prunegraph.passes.choose.request import Options

T = TypeVar("T", int, float)

Cost = Callable[[Mapping[str, int]], Mapping[str, float]]
"""From kept numbers by group id (others whole) to what is left of "macs", "params" and "bytes", as fractions."""

_STEPS = 30


def ratios(groups: Sequence[Group], options: Options) -> dict[str, float]:
    """By group id the fraction to remove, as far as ratios say.

    Raises:
        UsageError: a list has another length than there are groups, a kind or pattern matches none.
    """
    said: Any = options.ratio if isinstance(options.ratio, Mapping) else {}
    plain = options.plain_ratio
    found = {group.id: plain if plain and options.by_default(group.kind, group.exact) else 0.0 for group in groups}
    return found | _by_group(groups, said, "ratio")


def kept_numbers(groups: Sequence[Group], options: Options) -> dict[str, int]:
    """By group id the kept number, where the caller gives one.

    Raises:
        UsageError: see `ratios`; or more is kept than there is.
    """
    _check_fit(groups, options)
    found = _by_group(groups, options.keep, "number")
    for group in groups:
        if found.get(group.id, 0) > group.units:
            hint = f"keep at most {group.units}"
            raise UsageError(f"{group.id} has {group.units} units: {found[group.id]} cannot stay", hint=hint)
    return found


def with_own_amount(groups: Sequence[Group], options: Options) -> set[str]:
    """The ids of groups for which the caller gives an amount of their own."""
    said: Any = options.ratio if isinstance(options.ratio, Mapping) else {}
    return set(kept_numbers(groups, options)) | set(_by_group(groups, said, "ratio"))


def aligned_count(group: Group, options: Options, ratio: float, number: int | None = None) -> int:
    """How many units of a group stay: a fraction of them removed, or a given number, rounded up as `align` says."""
    align = 1 if group.kind in WHOLE_UNITS else options.align
    stays = keep_after_ratio(group.units, ratio, align) if number is None else math.ceil(number / align) * align
    return min(group.units, max(group.least, stays))


def resolve_counts(
    groups: Sequence[Group], options: Options, chosen: Collection[str], cost: Cost | None = None
) -> dict[str, int]:
    """By group id how many units stay of every chosen group.

    Args:
        groups: All groups of the model, in order.
        options: What the caller asked for.
        chosen: The ids of groups that may get smaller.
        cost: For a budget.

    Raises:
        UsageError: an amount does not fit the model, or a budget cannot be met.
    """
    fraction, number = ratios(groups, options), kept_numbers(groups, options)
    mine = [group for group in groups if group.id in chosen]
    found = {group.id: aligned_count(group, options, fraction[group.id], number.get(group.id)) for group in mine}
    if not options.budget:
        return found
    free = [g for g in mine if g.id not in with_own_amount(groups, options) and options.by_default(g.kind, g.exact)]
    assert cost is not None
    return found | _within(free, found, options, cost)


def _within(free: Sequence[Group], fixed: Mapping[str, int], options: Options, cost: Cost) -> dict[str, int]:
    """One ratio for all free groups, the smallest that meets the budget, and of its last step only what is needed."""

    def at(ratio: float) -> dict[str, int]:
        return {**fixed, **{group.id: aligned_count(group, options, ratio) for group in free}}

    def over(tried: Mapping[str, int]) -> float:
        left = cost(tried)
        return max(left[name] - limit for name, limit in options.budget.items())

    low, high = 0.0, 1.0 - 1e-9
    if over(at(low)) <= 0:
        return at(low)
    if over(at(high)) > 0:
        left = ", ".join(f"{cost(at(high))[name]:.3f} of {name}" for name in options.budget)
        hint = "raise the budget, or let more kinds be pruned: kinds=…, --kind KIND (hidden, qk_dim, v_dim)"
        raise UsageError(f"the budget cannot be met: with one unit left of every group there are {left}", hint=hint)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if over(at(middle)) > 0 else (low, middle)
    found, least = at(low), at(high)
    for group in free:
        if over(found) <= 0:
            break
        found[group.id] = least[group.id]
    return found


def _by_group(groups: Sequence[Group], said: Mapping[str, T | Sequence[T]], what: str) -> dict[str, T]:
    """By group id; patterns win over kinds, and later ones over earlier ones."""
    found: dict[str, T] = {}
    for key in sorted(said, key=is_pattern):
        value = said[key]
        members = [group for group in groups if _named(group, key)]
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
            found |= {group.id: each for group, each in zip(members, value, strict=True)}
        else:
            found |= {group.id: value for group in members}
    return found


def _named(group: Group, key: str) -> bool:
    if not is_pattern(key):
        return group.kind == key
    return matches(group.names, [key])


def _check_fit(groups: Iterable[Group], options: Options) -> None:
    """Whether the model is the one that a preset is for.

    Raises:
        UsageError: it has other groups.
    """
    everything = list(groups)
    for kind, shape in options.fits.items():
        shapes = {group.shape for group in everything if group.kind == kind}
        if shapes != {tuple(shape)}:
            there = ", ".join("x".join(map(str, s)) for s in sorted(shapes)) or "none"
            hint = "presets fit the models that they were published for; give ratios of your own for another"
            wanted = "x".join(map(str, shape))
            raise UsageError(f"the preset is for {kind} groups of {wanted} units, and the model has {there}", hint=hint)
