"""Format numbers, shares and lists for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunegraph.analysis.groups import Group
    from prunegraph.bench.stats import PairedRatio

EXAMPLES = 3


def amount(number: int) -> str:
    """A large number, rounded.

    >>> amount(17_241_984), amount(1_139)
    ('17.2 M', '1,139')
    """
    for limit, unit in ((10**9, "G"), (10**6, "M")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:,}"


def percent(share: float) -> str:
    """A share, with one digit.

    >>> percent(0.1234), percent(0.0001)
    ('12.3%', '<0.1%')
    """
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def units_of(group: Group, groups: Sequence[Group]) -> str:
    """How many units a group has, and of what every one has its own choice: `64`, `8 per head`."""
    per = (f" per {outer_kind(dim, rows, groups)}" for dim, rows in zip(group.outer, group.rows, strict=True))
    return f"{group.units:,}{''.join(per)}"


def outer_kind(dim: int, rows: int, groups: Sequence[Group]) -> str:
    """The kind of group that a group of many rows has a row for."""
    return next((group.kind for group in groups if group.dim == dim), f"row of {rows}")


def span(numbers: Sequence[int]) -> str:
    """What several numbers have in common, or how far they reach.

    >>> span([12, 12]), span([1729, 2305])
    ('12', '1,729 to 2,305')
    """
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def times_faster(ratio: PairedRatio) -> str:
    """How many times faster, with the interval: `2.01 times [1.95, 2.07]`."""
    return f"{ratio.median:.2f} times [{ratio.low:.2f}, {ratio.high:.2f}]"


def count(things: Sequence[object], what: str) -> str:
    """How many there are of what.

    >>> count([1], "node"), count([1, 2], "axis")
    ('1 node', '2 axes')
    """
    plural = {"axis": "axes"}.get(what, f"{what}s")
    return f"{len(things):,} {what if len(things) == 1 else plural}"


def some(names: Sequence[str]) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more
