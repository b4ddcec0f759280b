"""What the caller may ask for, checked once, with errors that name the fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunegraph.analysis.roles import KINDS
from prunegraph.errors import UsageError

NOT_BY_DEFAULT = ("qk_dim", "v_dim")
"""Exact kinds that a plain ratio leaves alone: with heads gone already, thinner ones cost accuracy fast."""

Ratio = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Options:
    """How much of what to remove.

    Attributes:
        ratio: Fraction removed, in [0, 1): one number for every exact kind but `qk_dim` and `v_dim`, or one a kind.
        scorer: Name of the scorer.
        align: Kept numbers of units are rounded up to a multiple of this (head counts are not).
        include: Patterns of group ids or scopes; only groups that match one are pruned. Empty: all.
        exclude: Patterns of group ids or scopes that stay whole.
        allow_io: Patterns of graph inputs and outputs that may shrink.
        seed: For scorers that draw.
        verify: Whether to prove the result before it is returned.
        scorer_options: Options of the scorer itself, by name.
    """

    ratio: Ratio = 0.5
    scorer: str = "magnitude"
    align: int = 1
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_io: Sequence[str] = ()
    seed: int = 0
    verify: bool = True
    scorer_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check everything that can be checked without a model.

        Raises:
            UsageError: a ratio is no fraction, a kind does not exist, or `align` is no positive number.
        """
        ratios = self.ratio if isinstance(self.ratio, Mapping) else {"": self.ratio}
        if not ratios:
            raise UsageError("no ratio was given", hint='give one, for example ratio=0.5 or ratio={"head": 0.5}')
        for kind, value in ratios.items():
            if kind and kind not in KINDS:
                raise UsageError(f"there is no kind of group called {kind!r}", hint=f"the kinds are {', '.join(KINDS)}")
            _check_fraction(value, kind)
        if isinstance(self.align, bool) or not isinstance(self.align, int) or self.align < 1:
            raise UsageError(f"align must be a positive number, not {self.align!r}", hint="8 suits most hardware")

    def ratio_of(self, kind: str, exact: bool) -> float:
        """The fraction to remove of a group of this kind."""
        if isinstance(self.ratio, Mapping):
            return float(self.ratio.get(kind, 0.0))
        return float(self.ratio) if exact and kind not in NOT_BY_DEFAULT else 0.0


def _check_fraction(value: object, kind: str) -> None:
    what = f"the ratio of {kind}" if kind else "the ratio"
    hint = "a ratio is the fraction removed, at least 0 and less than 1, such as 0.5"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise UsageError(f"{what} must be a number, not {value!r}", hint=hint)
    if not 0 <= value < 1:
        raise UsageError(f"{what} must be in [0, 1), not {value}", hint=hint)
