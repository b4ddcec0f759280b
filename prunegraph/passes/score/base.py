"""The table of scorers, and what a scorer is given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.gradients import GradientStatistic

logger = logging.getLogger(__name__)

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer may look at.

    Attributes:
        model: The normalized model.
        analysis: Its analysis.
        seed: For scorers that draw.
        settings: Options of the scorer by name, as the caller gave them.
        observations: What was seen of the model on data, under the names that the scorer asked for; see `observe_for`.
        ratios: By group id the fraction to remove that the caller asked for; the scorer decides on what is not named.
        memo: What a scorer works out once for all groups.
    """

    model: ir.Model
    analysis: Analysis
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    observations: Mapping[str, Any] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


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

SCORERS: dict[str, Scorer] = {}
NEEDS: dict[str, Needs] = {}
GRADIENTS: dict[str, Gradients] = {}
COUNTS: dict[str, Counts] = {}
ACCOUNTS: dict[str, Accounts] = {}
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


def score_with(name: str, groups: Sequence[Group], context: Context) -> dict[str, Scores]:
    """Score every group by the scorer of this name, or by `FALLBACK` where it cannot.

    Raises:
        UsageError: it can score none of them.
    """
    mine = [group for group in groups if scores_kind(name, group.kind)]
    others = [group for group in groups if not scores_kind(name, group.kind)]
    if not mine:
        kinds = ", ".join(sorted(KINDS_OF[name]))
        raise UsageError(f"{name} scores {kinds}, and none of these is pruned", hint="give a ratio of one of them")
    if others:
        kinds = ", ".join(sorted({group.kind for group in others}))
        logger.info("%s does not score %s: these go by %s", name, kinds, FALLBACK)
    return score(mine, context, find_scorer(name)) | score(others, context, find_scorer(FALLBACK))
