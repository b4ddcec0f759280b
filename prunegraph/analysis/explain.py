"""The JSON of `prunegraph explain`: groups and pins as data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from prunegraph.analysis.analyze import Analysis, Pinned
from prunegraph.analysis.cost import numbers_held
from prunegraph.analysis.space import Pin


def to_dict(analysis: Analysis, bases: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON that `prunegraph explain --json` prints.

    Every group with the weights that it makes smaller (`name[axis]`), and every pin: why, the node (or graph input or
    output) to blame, and the axes of weights that it holds.

    Args:
        analysis: What was found.
        bases: By id of groups inside of heads why their basis may not change, "" where it may; such groups say so.
    """
    bases = bases or {}
    return {
        "params": analysis.params,
        "groups": [
            {
                "id": g.id,
                "kind": g.kind,
                "units": g.units,
                "exact": g.exact,
                "where": [str(place) for place in g.places],
                "scope": g.scope,
                "rows": list(g.rows),
                "params": g.params,
                **({"rotates": not bases[g.id], "rotates_not": bases[g.id]} if g.id in bases else {}),
            }
            for g in analysis.groups
        ],
        "pins": [
            {"where": pin.where, "why": pin.why, "holds": [str(axis.place) for axis in axes]}
            for pin, axes in _by_pin(analysis.pinned).items()
        ],
    }


def to_text(analysis: Analysis, *, verbose: bool = False, bases: Mapping[str, str] | None = None) -> str:
    """Groups, and why the rest stays, as plain text: a line a group, a line a reason or, verbosely, a pin.

    Args:
        analysis: What was found.
        verbose: Name every pin with the node to blame, instead of one line a reason.
        bases: See `to_dict`.
    """
    lines = [f"{len(analysis.groups)} groups, {analysis.params:,} parameters"]
    for group in analysis.groups:
        size = " x ".join(map(str, group.shape))
        exact = "" if group.exact else "  inexact"
        lines.append(f"  {group.id:<12} {size:>10} units  {group.params:>10,} parameters each  {group.scope}{exact}")
    for name, reason in (bases or {}).items():
        lines.append(f"  {name}: {f'keeps its basis: {reason}' if reason else 'rotates'}")
    pins = _by_pin(analysis.pinned)
    lines.append(f"{len(pins)} pins")
    if verbose:
        lines += [f"  {pin.where}: {pin.why} ({len(axes)} axes)" for pin, axes in pins.items()]
        return "\n".join(lines)
    by_reason: dict[str, int] = defaultdict(int)
    for pin, axes in pins.items():
        by_reason[pin.why] += len(axes)
    lines += [f"  {why}: {count} axes" for why, count in sorted(by_reason.items(), key=lambda item: -item[1])]
    return "\n".join(lines)


def free_share(analysis: Analysis, *, exact: bool) -> float:
    """The share of the parameters that lie on a slot that may go: of exact groups, or of all."""
    groups = [g for g in analysis.groups if g.exact or not exact]
    leaves = {g.dim for g in groups}
    weights = dict.fromkeys(place.name for g in groups for place in g.places)
    share = sum(numbers_held(analysis.solution, name, leaves) for name in weights) / max(analysis.params, 1)
    return min(share, 1.0)  # a weight that several layers share may be there once for each


def _by_pin(pinned: Sequence[Pinned]) -> Mapping[Pin, list[Pinned]]:
    axes_by_pin: dict[Pin, list[Pinned]] = defaultdict(list)
    for axis in pinned:
        for pin in axis.pins:
            axes_by_pin[pin].append(axis)
    return axes_by_pin
