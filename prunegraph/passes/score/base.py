"""The scorer protocol, and what a scorer is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.roles import KINDS
from prunegraph.observe.gradients import GradientStatistic
from prunegraph.observe.stream import Inputs, Statistic

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer may look at.

    Attributes:
        model: The normalized model.
        analysis: Its analysis.
        seed: For scorers that draw and have no seed of their own.
        observations: What was seen of the model on data, under the names that the scorer gave; see `observe_for`.
        kept: By group id how many units the caller wants to keep (in every row); the scorer decides on the others.
        by_scorer: The observations of every scorer; see `of`.
    """

    model: ir.Model
    analysis: Analysis
    seed: int = 0
    observations: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    by_scorer: Mapping[Scorer, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def of(self, scorer: Scorer) -> Context:
        """What this scorer is given: its own observations."""
        own = self.by_scorer.get(scorer, {})
        return replace(self, observations={**self.observations, **own}) if own else self


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table for people, as plain text.

    Attributes:
        title: What it shows.
        headings: One a column.
        rows: The cells.
        strong: By row whether it stands out; empty if none is told apart.
        heat: By row and cell (but the first) a number in [0, 1] that colours it; empty for a table without colours.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[bool, ...] = ()
    heat: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ScoringReport:
    """What a scorer has to say of how it judged.

    Attributes:
        lines: For people.
        facts: For JSON.
        draw: Writes figures into a folder and returns their paths; None if there is nothing to draw.
        tables: For people who ask for more than lines.
    """

    lines: tuple[str, ...]
    facts: Mapping[str, Any]
    draw: Callable[[Path], tuple[Path, ...]] | None = None
    tables: tuple[ReportTable, ...] = ()


@runtime_checkable
class Scorer(Protocol):
    """Gives every unit of a group a number, high for what should stay.

    Subclasses say what differs from these defaults; `score` is all that must be there.  A scorer is hashable and never
    changes: a frozen dataclass, whose fields are its options.
    """

    @property
    def name(self) -> str:
        """What `scorer=` and `--scorer` call it."""
        ...

    @property
    def kinds(self) -> Collection[str]:
        """The kinds of groups that it can score; others go by magnitude."""
        return KINDS

    @property
    def data_kinds(self) -> Collection[str]:
        """The kinds for which it needs data."""
        return ()

    @property
    def extras(self) -> Collection[str]:
        """The extras of the distribution whose packages it needs where it scores, told before any work is begun."""
        return ()

    @property
    def parsing_extras(self) -> Collection[str]:
        """The extras that it needs on top where the data are texts that come without dependency trees."""
        return ()

    @property
    def comparable(self) -> bool:
        """Whether its scores compare across all groups of a kind, so that units may be ranked together."""
        return False

    @property
    def decides(self) -> bool:
        """Whether it says how many units stay where the caller does not; see `counts`."""
        return False

    @property
    def keeps_basis(self) -> bool:
        """Whether it is about the dims of heads as they are, so that they are turned only where that is asked for."""
        return False

    @property
    def output(self) -> str:
        """The model output whose loss gradients are of; the first if empty."""
        return ""

    def observes(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
        """What it wants observed on data for some groups, by name.

        Raises:
            UsageError: the data or the model do not suit it.
        """
        return {}

    def gradients(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, GradientStatistic]:
        """What it wants gathered from a backward pass for some groups, by name.

        Raises:
            UsageError: the data or the model do not suit it.
        """
        return {}

    def conclude(self, context: Context) -> Mapping[str, Any]:
        """What follows from its observations for all groups together, by name; it is kept beside them."""
        return {}

    def counts(self, groups: Sequence[Group], context: Context) -> Mapping[str, int]:
        """By group id how many units stay, where it `decides` that; what it does not name stays whole."""
        return {}

    def score(self, group: Group, context: Context) -> Scores:
        """An array of the group's shape `(*rows, units)`; high means keep."""
        ...

    def report(self, context: Context) -> ScoringReport | None:
        """How it judged, after scoring; None if there is nothing to say."""
        return None


Account = ScoringReport
"""The name that `ScoringReport` had."""

ScorerLike = str | Scorer | Callable[[Group, Context], Any]
"""The name of a scorer, a scorer, or a function from a group and a context to an array of the group's shape."""

Scorers = ScorerLike | Mapping[str, ScorerLike]
"""One scorer for all kinds that it can score, or one a kind; the others go by magnitude."""
