"""Why no group gets smaller: what is there, what holds the rest, and which amount takes it all the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.errors import NothingToPrune
from prunegraph.passes.choose.amounts import is_pattern
from prunegraph.passes.choose.request import Amount


def missing_kinds(groups: Collection[Group], amount: Amount) -> list[str]:
    """The kinds that an amount names and of which a model has no group, by name."""
    named = {key for key in (*amount.ratios, *amount.keep, *amount.kinds) if not is_pattern(key)}
    return sorted(named - {group.kind for group in groups})


def say_missing(groups: Collection[Group], missing: Sequence[str]) -> str:
    """Says which kinds a model has none of, and which it has.

    >>> say_missing([], ["expert"])
    'the model has no group of kind expert'
    """
    there = ", ".join(dict.fromkeys(group.kind for group in groups))
    return f"the model has no group of kind {', '.join(missing)}" + (f"; it has {there}" if there else "")


def nothing_to_prune(analysis: Analysis, amount: Amount) -> NothingToPrune:
    """Why no group got smaller, from what is there and from the pins."""
    keys = [*amount.ratios, *amount.keep]
    missing = missing_kinds(analysis.groups, amount)
    if analysis.groups and not missing:
        if not keys and not amount.kinds and (others := _not_by_default(analysis.groups, amount)):
            return others
        return NothingToPrune(
            "nothing to prune: the ratio, the patterns or the alignment leave every group whole",
            hint="`prunegraph explain` lists the groups and their sizes",
        )
    reasons = [str(pin) for pinned in analysis.pinned for pin in pinned.pins]
    common = max(set(reasons), key=reasons.count) if reasons else "the model has no weights"
    what = say_missing(analysis.groups, missing) if missing else "nothing to prune: no axis is free"
    hint = "`prunegraph explain -v` shows every pin and its node"
    if common.startswith(("graph input", "graph output")):
        hint += "; --allow-io lets inputs and outputs shrink"
    return NothingToPrune(f"{what}; most axes are held by: {common}", hint=hint)


def _not_by_default(groups: Sequence[Group], amount: Amount) -> NothingToPrune | None:
    """The refusal where all groups are of such as one number for all kinds leaves alone; None where some are not."""
    if any(amount.by_default(group.kind, group.exact) for group in groups):
        return None
    kinds = list(dict.fromkeys(group.kind for group in groups))
    listed = ", ".join(f"{group.id} ({group.units} units{'' if group.exact else ', inexact'})" for group in groups[:4])
    more = f" and {len(groups) - 4} more" if len(groups) > 4 else ""
    take = " ".join(f"--ratio {kind}=0.5" for kind in kinds)
    ratio = ", ".join(f'"{kind}": 0.5' for kind in kinds)
    return NothingToPrune(
        f"nothing to prune: one number for all kinds leaves {listed}{more} alone",
        hint=f"name the kind to take it all the same: {take}, or ratio={{{ratio}}}; inexact is what a norm averages "
        "over or a router ranks, so that what stays counts for more",
    )
