"""What the caller asks for: how much (`Amount`) of which part of a model (`Scope`), checked before a model is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunegraph.analysis.former_kinds import present_keys, present_name
from prunegraph.analysis.names import as_patterns
from prunegraph.bench.device_table import LatencyTable
from prunegraph.errors import UsageError
from prunegraph.passes.choose.amounts import (
    BUDGETS,
    KeptNumbers,
    Ratio,
    check_budget,
    check_keep,
    check_kinds,
    check_ratio,
    is_pattern,
    read_amounts,
)
from prunegraph.passes.choose.head_filter import FilterOptions
from prunegraph.passes.score import KindScorers, Scorers, resolve_scorers

NOT_BY_DEFAULT = ("qk_dim", "v_dim", "state", "rank")
"""Exact kinds that a plain ratio leaves alone: few units in which much is kept, so that each costs accuracy fast."""

RANKS = ("local", "global")


@dataclass(frozen=True, slots=True)
class Amount:
    """How much goes.

    >>> Amount(0.5).plain_ratio, Amount(macs=0.6, kinds="ffn").budget
    (0.5, {'macs': 0.6})

    Attributes:
        ratio: Fraction removed, in [0, 1): one number for all `kinds`; or by kind, or by pattern of group ids or
            scopes, a number or a list with one for every such group in the order of the graph
            (`{"head": 0.5, "ffn": [0.5, 0.25]}`); or a JSON or YAML file of that, or the name of a preset such as
            "snp-deit-base". None: 0.5, unless `keep`, a budget or `drop` says how much.
        keep: How many units stay, by kind or pattern, one number or a list as for `ratio`: `{"head": 6}`; wins over it.
        macs: Budget: what is left of the multiply-accumulates, a fraction or, above 1, their number. The smallest ratio
            that meets all budgets is found, one for all groups of `kinds` that `ratio` and `keep` do not speak of.
        params: Budget: what is left of the parameters, a fraction or a number.
        bytes: Budget: what is left of the bytes of weights, a fraction or a number.
        drop: Patterns of ids or scopes of groups of heads, FFN neurons or channels that go whole, with the sub-block
            around them, such as a residual block of convolutions: `["ffn.3"]`. Without a ratio, nothing else goes.
        dead: All units that no output hangs on go, and constant ones after their value has moved into the biases of
            what reads them; nothing else does, and the outputs stay what they are. No other amount stands beside it.
        layer_threshold: All heads of a layer go where more than this share of them would; 1 lets one stay.
        kinds: What one number and a budget are for; by default every exact kind but `qk_dim`, `v_dim`,
            `state` and `rank`.
        align: Numbers that stay are rounded up to a multiple of this (heads and experts are not); 1 rounds nothing.
            None: channels of convolutions, at least 32 of them, that a ratio or a budget cuts are rounded up to
            multiples of 8, which kernels like; kept numbers stay as they are given.
        rank: "local": the ratio holds in every group; "global": it holds over all groups of a kind together, and units
            are ranked across them (groups that are chosen row by row stay local). None: global for scorers whose
            scores compare across groups, local for the others.
        uniform: Groups of one kind that are equally large keep equally many units, as a configuration needs that has
            one number for all layers: the mean of what each would keep.
        least: The share of its units that every group keeps at least where units are ranked across groups.
        filtering: Take back the removal of heads that cost too much on the data.
        rotate: Turn the dims inside of heads (`qk_dim`, `v_dim`) before they are cut, such that the last contribute
            least. None: where data are given, and no scorer is asked for that is about these dims as they are; True:
            always, by the weights alone where there are no data; False: never.
        speedup: How many times faster the result shall be, measured beside the original; where data are given, what
            goes where follows from what it does to the outputs, residual widths among it unless `kinds` leave them out,
            and units go by their activation unless a scorer is named. Budgets and `latency_ms` may stand beside it, no
            ratio.
        latency_ms: How many milliseconds a run of the result may take on the execution provider at hand.
        max_drop: The fastest plan is found whose `metric` on the data is worse by no more than this many percent:
            points of accuracy, agreement and what else lies in [0, 1], percent of the original's perplexity or of the
            value of a function.
        metric: See `PruneResult.evaluate`; "auto" is accuracy where the data have labels, else agreement.
        table: A latency table, or its file (docs/speed.md): the time on the device where that was measured counts, and
            nothing is timed here.
        search: Minutes of local search after the plan; a change stays where the outputs come nearer to the original's
            on held-out examples, too.
        ep: The execution provider that is timed.
        timing: How it is timed: `batch`, `sequence`, `sizes`, `threads`, `protocol`, `rounds` of `bench.compare`.
        keep_form: Do not write equal forms that this runtime runs faster.
        fits: By kind, the shape that every group must have, as a preset says.
    """

    ratio: Ratio | None = None
    keep: KeptNumbers = field(default_factory=dict)
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    drop: str | Sequence[str] = ()
    dead: bool = False
    layer_threshold: float = 1.0
    kinds: str | Sequence[str] = ()
    align: int | None = None
    rank: str | None = None
    uniform: bool = False
    least: float = 0.0
    filtering: FilterOptions | None = None
    rotate: bool | None = None
    speedup: float | None = None
    latency_ms: float | None = None
    max_drop: float | None = None
    metric: str = "auto"
    table: LatencyTable | str | os.PathLike[str] | None = None
    search: float = 0.0
    ep: str = "cpu"
    timing: Mapping[str, Any] = field(default_factory=dict)
    keep_form: bool = False
    fits: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @staticmethod
    def of(amount: Amount | Ratio | None, **fields: Any) -> Amount:
        """An amount from what stands for one: a number, a mapping, a file or a preset is a ratio.

        Args:
            amount: The amount, or a ratio.
            fields: What is said of it elsewhere.
        """
        if isinstance(amount, Amount):
            return replace(amount, **fields) if fields else amount
        return Amount(amount, **fields)

    def __post_init__(self) -> None:
        """Check everything that can be checked without a model, and read presets and files.

        Raises:
            UsageError: a number is wrong, or a kind or a preset does not exist.
        """
        for name in ("kinds", "drop"):
            self._set(name, tuple(map(present_name, as_patterns(getattr(self, name)))))
        if isinstance(self.ratio, (str, os.PathLike)):
            amounts = read_amounts(self.ratio)
            self._set("ratio", amounts.ratio)
            self._set("keep", {**amounts.keep, **self.keep})
            self._set("fits", amounts.fits)
        if self.rotate not in (None, True, False):
            hint = "give True, False, or None: where data are given"
            raise UsageError(f"rotate cannot be {self.rotate!r}", hint=hint)
        for name in ("ratio", "keep", "fits"):
            if isinstance(getattr(self, name), Mapping):
                self._set(name, present_keys(getattr(self, name)))
        if self.ratio is not None:
            check_ratio(self.ratio)
        check_keep(self.keep)
        check_budget(self.budget)
        check_kinds(self.kinds)
        if self.budget and not isinstance(self.ratio, Mapping | None):
            hint = "leave out the ratio, or give it for some kinds only; the budget finds one for the others"
            raise UsageError("one ratio for all kinds beside a budget", hint=hint)
        if self.dead and (self.ratio is not None or self.budget or self.keep or self.drop or self.by_speed):
            hint = "remove dead units first, and prune what comes of that"
            raise UsageError("another amount beside dead units", hint=hint)
        if isinstance(self.table, (str, os.PathLike)):
            self._set("table", LatencyTable.load(self.table, provider=self.ep))
        self._check_speed()
        align = 1 if self.align is None else self.align
        if isinstance(align, bool) or not isinstance(align, int) or align < 1:
            raise UsageError(f"align must be a positive number, not {self.align!r}", hint="8 suits most hardware")
        if not 0 < self.layer_threshold <= 1:
            problem = f"the layer threshold must be in (0, 1], not {self.layer_threshold}"
            raise UsageError(problem, hint="0.8 removes an attention of which more than four fifths would go")
        if self.uniform:
            self._check_uniform()
        if self.rank is not None and self.rank not in RANKS:
            raise UsageError(f"there is no rank {self.rank!r}", hint=f"choose {' or '.join(RANKS)}")
        if isinstance(self.least, bool) or not isinstance(self.least, (int, float)) or not 0 <= self.least <= 1:
            hint = "0.2 keeps a fifth of every group where units are ranked across groups"
            raise UsageError(f"the least share must be in [0, 1], not {self.least!r}", hint=hint)

    def _check_speed(self) -> None:
        """Check the arguments that concern speed.

        Raises:
            UsageError: a number is wrong, or something else stands beside it that says how much goes.
        """
        if self.by_speed and (self.ratio is not None or self.keep or self.drop):
            hint = "leave out ratio, keep and drop: they follow from the speed; kinds=… says what may go"
            raise UsageError("another amount beside a speed-up", hint=hint)
        least = {"speedup": 1, "latency_ms": 0, "max_drop": 0}
        hints = {
            "speedup": "give more than 1, such as 2 for twice as fast",
            "latency_ms": "give milliseconds, such as 4.5",
            "max_drop": "give percent, such as 1 for a point of accuracy",
        }
        names = {"speedup": "speed-up", "latency_ms": "latency", "max_drop": "largest drop"}
        for name, low in least.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and low < value < float("inf")):
                raise UsageError(f"the {names[name]} is {value!r}", hint=hints[name])
        if self.max_drop is not None and (self.speedup is not None or self.latency_ms is not None):
            hint = "leave out one of them: with max_drop the fastest plan is found"
            raise UsageError("a largest drop beside a speed-up or a latency", hint=hint)
        for name, given in (("a latency table", self.table), ("a search", self.search)):
            if given and not self.by_speed:
                raise UsageError(f"{name} without a speed", hint="give speedup, latency_ms or max_drop")

    def _check_uniform(self) -> None:
        """Check that nothing is asked for that makes layers differ.

        Raises:
            UsageError: something is.
        """
        lists = [key for given in (self.ratios, self.keep) for key, each in given.items() if isinstance(each, Sequence)]
        uneven = {
            "a list by layer": bool(lists),
            "filtering": self.filtering is not None,
            "a layer threshold": self.layer_threshold < 1,
        }
        for what, given in uneven.items():
            if given:
                hint = "leave out one of the two: uniform keeps equally many units in all layers"
                raise UsageError(f"{what} beside uniform", hint=hint)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def by_speed(self) -> bool:
        """Whether measured time says how much goes."""
        return self.speedup is not None or self.latency_ms is not None or self.max_drop is not None

    @property
    def budget(self) -> dict[str, float]:
        """By "macs", "params" and "bytes" what may be left, as far as it is limited: a fraction, or a number."""
        limits = {name: getattr(self, name) for name in BUDGETS}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def in_fractions(self, totals: Mapping[str, float]) -> Amount:
        """The same with all budgets as fractions.

        Args:
            totals: By "macs", "params" and "bytes" how much the whole model has.
        """
        absolute: dict[str, Any] = {
            name: min(1.0, limit / totals[name]) for name, limit in self.budget.items() if limit > 1
        }
        return replace(self, **absolute) if absolute else self

    @property
    def ratios(self) -> Mapping[str, float | Sequence[float]]:
        """The ratios by kind or pattern; empty where one is for all."""
        return self.ratio if isinstance(self.ratio, Mapping) else {}

    @property
    def plain_ratio(self) -> float:
        """The one number for all kinds: 0.5 where nothing else says how much."""
        if isinstance(self.ratio, (int, float)):
            return float(self.ratio)
        return 0.5 if self.ratio is None and not (self.keep or self.budget or self.drop or self.dead) else 0.0

    def by_default(self, kind: str, exact: bool) -> bool:
        """Whether one number for all kinds, or a budget, is for groups of this kind."""
        return kind in self.kinds if self.kinds else exact and kind not in NOT_BY_DEFAULT

    def may_prune(self, kind: str) -> bool:
        """Whether a group of this kind may get smaller, as far as can be told without a model."""
        named = [*self.ratios, *self.keep]
        everywhere = bool(self.budget) or self.plain_ratio > 0
        return kind in named or any(map(is_pattern, named)) or (everywhere and self.by_default(kind, True))


def scorers_by_kind(scorer: Scorers | KindScorers | None, settings: Mapping[str, Any] | None = None) -> KindScorers:
    """Scorers from what stands for them; see `resolve_scorers`.

    Raises:
        UsageError: there is no such scorer, option or kind.
    """
    if isinstance(scorer, Mapping):
        scorer = present_keys(scorer)
        check_kinds(scorer)
    return resolve_scorers(scorer, settings)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a model may change; a plain string is one pattern.

    Attributes:
        include: Patterns of group ids or scopes to prune; all if empty.
        exclude: Patterns of group ids or scopes to leave whole.
        allow_io: Patterns of graph inputs and outputs that may shrink with the rest.
        sizes: Lengths of dynamic dims of inputs, by name, at which the model is tried and proven (`{"batch": 1}`), for
            models that do not run at others; what is left out is found.
        values: Inputs of one value for good, by name (`{"sr": 16000, "use_cache_branch": True}`): the slim model has
            these inputs still and reads them no more, an If that hangs on them is gone, and the proof holds for them.
    """

    include: str | Sequence[str] = ()
    exclude: str | Sequence[str] = ()
    allow_io: str | Sequence[str] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make tuples of all patterns."""
        for name in ("include", "exclude"):
            object.__setattr__(self, name, tuple(map(present_name, as_patterns(getattr(self, name)))))
        object.__setattr__(self, "allow_io", as_patterns(self.allow_io))
