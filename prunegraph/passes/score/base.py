"""The table of scorers, and what a scorer is given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError
from prunegraph.observe.gradients import GradientStatistic
from prunegraph.observe.stream import Inputs, Statistic

logger = logging.getLogger(__name__)

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer may look at.

    Attributes:
        model: The normalized model.
        analysis: Its analysis.
        seed: For scorers that draw.
        settings: Options of the scorer by name, as the caller gave them; see `of`.
        observations: What was seen of the model on data, under the names that the scorer asked for; see `observe_for`.
        kept: By group id how many units the caller wants to keep (in every row); the scorer decides on the others.
        memo: What a scorer works out once for all groups.
    """

    model: ir.Model
    analysis: Analysis
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    observations: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def of(self, name: str) -> Context:
        """What the scorer of this name is given: options called `NAME.option` are for it alone, without the prefix."""
        plain = {key: value for key, value in self.settings.items() if "." not in key}
        own = {key.removeprefix(f"{name}."): v for key, v in self.settings.items() if key.startswith(f"{name}.")}
        return replace(self, settings={**plain, **own})


@dataclass(frozen=True, slots=True)
class Account:
    """What a scorer has to say of how it judged.

    Attributes:
        lines: For people.
        facts: For JSON.
        draw: Writes figures into a folder and returns their paths; None if there is nothing to draw.
    """

    lines: tuple[str, ...]
    facts: Mapping[str, Any]
    draw: Callable[[Path], tuple[Path, ...]] | None = None


Scorer = Callable[[Group, Context], Scores]
"""Returns an array of the group's shape `(*rows, units)`; high means keep."""

Needs = Callable[[Sequence[Group], Context, Inputs], Mapping[str, Statistic]]
"""What a scorer wants observed for some groups, by name; raises `UsageError` where the data or the model do not
suit it."""

Gradients = Callable[[Sequence[Group], Context, Inputs], Mapping[str, GradientStatistic]]
"""The same for what it wants of a backward pass; the loss is that of the output that its option `output` names."""

Counts = Callable[[Sequence[Group], Context], Mapping[str, int]]
"""By group id how many units stay, where the scorer itself decides that; what it does not name stays whole."""

Accounts = Callable[[Context], Account]

Scorers = str | Mapping[str, str]
"""One scorer for all kinds that it can score, or one a kind; `FALLBACK` scores the others."""

SCORERS: dict[str, Scorer] = {}
NEEDS: dict[str, Needs] = {}
GRADIENTS: dict[str, Gradients] = {}
COUNTS: dict[str, Counts] = {}
ACCOUNTS: dict[str, Accounts] = {}
NEEDS_FOR: dict[str, frozenset[str]] = {}
"""Kinds of groups for which a scorer needs data, where it does not for all."""

KINDS_OF: dict[str, frozenset[str]] = {}
"""Kinds of groups that a scorer can score, where it cannot score all; others are scored by `FALLBACK`."""

FALLBACK = "magnitude"
ACROSS: set[str] = set()
"""Scorers whose scores compare across all groups of a kind, so that units are ranked together."""


def scorer(
    name: str,
    *,
    needs: Needs | None = None,
    gradients: Gradients | None = None,
    counts: Counts | None = None,
    account: Accounts | None = None,
    needs_for: Iterable[str] = (),
    kinds: Iterable[str] = (),
    across: bool = False,
) -> Callable[[Scorer], Scorer]:
    """Register a scorer under a name.

    Args:
        name: What `scorer=` and `--scorer` call it.
        needs: What it wants observed, if anything.
        gradients: What it wants of a backward pass, if anything.
        counts: How many units stay where the caller gives no ratio, if it decides that itself.
        account: What it has to say after scoring, if anything.
        needs_for: The kinds for which it needs data; all if empty.
        kinds: The kinds that it can score; all if empty.
        across: Whether its scores compare across all groups of a kind.
    """

    def register(function: Scorer) -> Scorer:
        SCORERS[name] = function
        tables: tuple[tuple[dict[str, Any], Any], ...] = (
            (NEEDS, needs),
            (GRADIENTS, gradients),
            (COUNTS, counts),
            (ACCOUNTS, account),
        )
        for table, given in tables:
            if given is not None:
                table[name] = given
        if needs_for:
            NEEDS_FOR[name] = frozenset(needs_for)
        if kinds:
            KINDS_OF[name] = frozenset(kinds)
        if across:
            ACROSS.add(name)
        return function

    return register


def find_scorer(name: str) -> Scorer:
    """The scorer of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in SCORERS:
        raise UsageError(f"there is no scorer {name!r}", hint=f"choose one of {', '.join(sorted(SCORERS))}")
    return SCORERS[name]


def score(groups: Iterable[Group], context: Context, by: Scorer) -> dict[str, Scores]:
    """Score every group.

    Raises:
        ValueError: the scorer returned another shape than the group's, or a NaN.
    """
    found: dict[str, Any] = {}
    for group in groups:
        scores = np.asarray(by(group, context), dtype=np.float64)
        if scores.shape != group.shape or np.isnan(scores).any():
            raise ValueError(f"a scorer returned {scores.shape} (or NaN) for {group.id} of shape {group.shape}")
        found[group.id] = scores
    return found


def scores_kind(name: str, kind: str) -> bool:
    """Whether a scorer can score groups of this kind."""
    return name not in KINDS_OF or kind in KINDS_OF[name]


def needs_data(name: str, kind: str) -> bool:
    """Whether a scorer needs data to score groups of this kind."""
    return scores_kind(name, kind) and (name in NEEDS or name in GRADIENTS) and kind in NEEDS_FOR.get(name, {kind})


def scorer_of(scorers: Scorers, kind: str) -> str:
    """The name of the scorer of this kind."""
    if isinstance(scorers, str):
        return scorers if scores_kind(scorers, kind) else FALLBACK
    return scorers.get(kind, FALLBACK)


def check_scorers(scorers: Scorers) -> None:
    """Check that these scorers exist and can score the kinds that they are for.

    Raises:
        UsageError: one does not, or cannot.
    """
    for kind, name in [("", scorers)] if isinstance(scorers, str) else list(scorers.items()):
        find_scorer(name)
        if kind and not scores_kind(name, kind):
            able = ", ".join(other for other in sorted(SCORERS) if scores_kind(other, kind))
            raise UsageError(f"{name} does not score {kind}", hint=f"choose one of {able} for it")


def score_with(scorers: Scorers, groups: Sequence[Group], context: Context) -> dict[str, Scores]:
    """Score every group by the scorer of its kind, or by `FALLBACK` where there is none.

    Raises:
        UsageError: the one scorer that is given can score none of them.
    """
    if isinstance(scorers, str):
        others = [group for group in groups if not scores_kind(scorers, group.kind)]
        if len(others) == len(groups):
            kinds = ", ".join(sorted(KINDS_OF.get(scorers, ())))
            raise UsageError(
                f"{scorers} scores {kinds}, and none of these is pruned", hint="give a ratio of one of them"
            )
        if others:
            kinds = ", ".join(sorted({group.kind for group in others}))
            logger.info("%s does not score %s: these go by %s", scorers, kinds, FALLBACK)
    found: dict[str, Scores] = {}
    for name in dict.fromkeys(scorer_of(scorers, group.kind) for group in groups):
        mine = [group for group in groups if scorer_of(scorers, group.kind) == name]
        found |= score(mine, context.of(name), find_scorer(name))
    return found
