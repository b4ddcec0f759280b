"""What the caller may ask for, checked once, with errors that name the fix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunegraph.analysis.names import as_patterns
from prunegraph.errors import UsageError
from prunegraph.passes.choose.amounts import (
    Keep,
    Ratio,
    check_budget,
    check_keep,
    check_kinds,
    check_ratio,
    is_pattern,
    read_amounts,
)
from prunegraph.passes.score import KindScorers, Scorers, resolve_scorers

__all__ = ["NOT_BY_DEFAULT", "Keep", "Options", "Ratio"]

NOT_BY_DEFAULT = ("qk_dim", "v_dim")
"""Exact kinds that a plain ratio leaves alone: with heads gone already, thinner ones cost accuracy fast."""

REPAIRS = ("none", "bias", "lstsq", "auto")
"""What can be done to weights that read removed units."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much of what to remove.

    Attributes:
        ratio: Fraction removed, in [0, 1): one number for all `kinds`; or by kind or by pattern of group ids or scopes,
            a number or a list with one for every such group in the order of the graph; or a preset, or a JSON or YAML
            file. None: 0.5, unless `keep` or `budget` says how much.
        scorer: The scorer by its name, or a scorer, or a function from a group and a context to scores; or one a kind.
        align: Kept numbers of units are rounded up to a multiple of this (head counts are not).
        include: Patterns of group ids or scopes; only groups that match one are pruned. Empty: all.
        exclude: Patterns of group ids or scopes that stay whole.
        allow_io: Patterns of graph inputs and outputs that may shrink.
        seed: For scorers that draw.
        verify: Whether to prove the result before it is returned.
        scorer_options: Options of the scorer itself, by name; `NAME.option` is for the scorer of that name alone.
        keep: Kept numbers of units by kind or pattern, one or a list as for `ratio`; wins over it.
        budget: Fractions of "macs", "params" or "bytes" that are left: one ratio for all groups of `kinds` that nothing
            else speaks of is found.
        kinds: What one number and a budget are for; empty: every exact kind but `qk_dim` and `v_dim`.
        fits: By kind, the shape that every group must have, as a preset says.
        drop: Patterns of ids or scopes of groups of heads or FFN neurons that go whole, whatever the ratio.
        layer_threshold: All heads of a layer go where more than this share of them would.
        providers: Execution providers that run the data, `cuda` or `CUDAExecutionProvider`; the CPU if empty.
        repair: How weights that read removed units are re-fitted on the data, see `passes.repair`; None: "auto" where
            data are given, else "none".
        scorers: The scorers with their options, by kind.
    """

    ratio: Ratio | None = None
    scorer: Scorers = "magnitude"
    align: int = 1
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_io: Sequence[str] = ()
    seed: int = 0
    verify: bool = True
    scorer_options: Mapping[str, Any] = field(default_factory=dict)
    keep: Keep = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    kinds: Sequence[str] = ()
    fits: Mapping[str, Sequence[int]] = field(default_factory=dict)
    drop: Sequence[str] = ()
    layer_threshold: float = 1.0
    providers: Sequence[str] = ()
    repair: str | None = None
    scorers: KindScorers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check everything that can be checked without a model, and read presets and files.

        Raises:
            UsageError: an amount is wrong, a kind or a preset does not exist, or `align` is no positive number.
        """
        for name in ("include", "exclude", "allow_io", "kinds", "drop", "providers"):
            self._set(name, as_patterns(getattr(self, name)))
        if isinstance(self.ratio, (str, os.PathLike)):
            said = read_amounts(self.ratio)
            self._set("ratio", said.ratio)
            self._set("keep", {**said.keep, **self.keep})
            self._set("fits", said.fits)
        if self.ratio is not None:
            check_ratio(self.ratio)
        check_keep(self.keep)
        check_budget(self.budget)
        check_kinds(self.kinds)
        if isinstance(self.scorer, Mapping):
            check_kinds(self.scorer)
        self._set("scorers", resolve_scorers(self.scorer, self.scorer_options))
        if self.budget and not isinstance(self.ratio, Mapping | None):
            hint = "leave out the ratio, or give it for some kinds only; the budget finds one for the others"
            raise UsageError("one ratio for all kinds beside a budget", hint=hint)
        if isinstance(self.align, bool) or not isinstance(self.align, int) or self.align < 1:
            raise UsageError(f"align must be a positive number, not {self.align!r}", hint="8 suits most hardware")
        if not 0 < self.layer_threshold <= 1:
            problem = f"the layer threshold must be in (0, 1], not {self.layer_threshold}"
            raise UsageError(problem, hint="0.8 removes an attention of which more than four fifths would go")

        if self.repair is not None and self.repair not in REPAIRS:
            raise UsageError(f"there is no repair {self.repair!r}", hint=f"choose one of {', '.join(REPAIRS)}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def by_default(self, kind: str, exact: bool) -> bool:
        """Whether one number for all kinds, or a budget, is for groups of this kind."""
        return kind in self.kinds if self.kinds else exact and kind not in NOT_BY_DEFAULT

    def ratio_of(self, kind: str, exact: bool) -> float:
        """The fraction to remove of a group of this kind, as far as kinds decide."""
        if isinstance(self.ratio, Mapping):
            said = self.ratio.get(kind, 0.0)
            return float(said) if isinstance(said, (int, float)) else 0.0
        return self.plain_ratio if self.by_default(kind, exact) else 0.0

    @property
    def plain_ratio(self) -> float:
        """The one number for all kinds: 0.5 where nothing else says how much."""
        if isinstance(self.ratio, (int, float)):
            return float(self.ratio)
        return 0.5 if self.ratio is None and not (self.keep or self.budget or self.drop) else 0.0

    def may_prune(self, kind: str) -> bool:
        """Whether a group of this kind may get smaller, as far as can be told without a model."""
        named = [*(self.ratio if isinstance(self.ratio, Mapping) else ()), *self.keep]
        everywhere = bool(self.budget) or self.plain_ratio > 0
        return kind in named or any(map(is_pattern, named)) or (everywhere and self.by_default(kind, True))
