"""Find a scorer by its name: those that come with the package, and those that other packages register.

Another package registers a scorer by an entry point of the group `prunegraph.scorers`: its name, and the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError
from prunegraph.passes.score.activation import Activation
from prunegraph.passes.score.base import Context, Scorer, ScorerLike, Scores
from prunegraph.passes.score.cahp import Cahp
from prunegraph.passes.score.magnitude import Magnitude
from prunegraph.passes.score.michel import Michel
from prunegraph.passes.score.obs import Obs
from prunegraph.passes.score.options import option_names, read_options
from prunegraph.passes.score.random import Random
from prunegraph.passes.score.sap import Sap
from prunegraph.passes.score.snp import Snp
from prunegraph.passes.score.taylor import Taylor

ENTRY_POINTS = "prunegraph.scorers"

_CLASSES: tuple[type[Scorer], ...] = (Magnitude, Random, Activation, Obs, Snp, Taylor, Michel, Cahp, Sap)

SCORERS: dict[str, type[Scorer]] = {str(cls.name): cls for cls in _CLASSES}
"""The scorers that come with the package."""


@dataclass(frozen=True)
class FunctionScorer(Scorer):
    """A plain function as a scorer of all kinds, without data."""

    function: Any

    @property
    def name(self) -> str:
        """What the function is called."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def score(self, group: Group, context: Context) -> Scores:
        """What the function returns."""
        return np.asarray(self.function(group, context), dtype=np.float64)


def scorer_names() -> tuple[str, ...]:
    """The names of all scorers that can be asked for."""
    return tuple(sorted({*SCORERS, *_installed()}))


def make_scorer(name: str, settings: Mapping[str, Any] | None = None) -> Scorer:
    """The scorer of this name with these options.

    Args:
        name: One of `scorer_names`.
        settings: Options by name, perhaps as text.

    Raises:
        UsageError: there is no such scorer or option, or what another package registers is none.
    """
    cls = find_scorer(name)
    if isinstance(cls, type):
        return as_scorer(read_options(cls, settings or {}))
    if settings:
        raise UsageError(f"{name} has no option {next(iter(settings))!r}", hint="it has none")
    return as_scorer(cls)


def find_scorer(name: str) -> Any:
    """What is registered under this name: a class, or what another package registers instead of one.

    Raises:
        UsageError: there is no such scorer, or the package that registers it cannot be imported.
    """
    if name in SCORERS:
        return SCORERS[name]
    entry = _installed().get(name)
    if entry is None:
        raise UsageError(f"there is no scorer {name!r}", hint=f"choose one of {', '.join(scorer_names())}")
    try:
        return entry.load()
    except Exception as error:  # whatever a stranger's module raises
        hint = f"the entry point {entry.value} registers it; install what it needs, or remove its package"
        raise UsageError(f"the scorer {name!r} cannot be loaded: {error}", hint=hint) from error


def options_of(name: str) -> tuple[str, ...]:
    """The names of a scorer's options."""
    cls = find_scorer(name)
    return option_names(cls) if isinstance(cls, type) else ()


def as_scorer(scorer: ScorerLike) -> Scorer:
    """A scorer from what stands for one.

    Raises:
        UsageError: it is neither a name, nor a scorer, nor a function.
    """
    if isinstance(scorer, str):
        return make_scorer(scorer)
    if isinstance(scorer, type) and Scorer in scorer.__mro__:
        return as_scorer(read_options(scorer, {}))
    if isinstance(scorer, Scorer):
        try:
            hash(scorer)
        except TypeError:
            hint = "make it a frozen dataclass, with tuples instead of lists"
            raise UsageError(f"the scorer {scorer.name!r} cannot be hashed", hint=hint) from None
        return scorer
    if callable(scorer):
        return FunctionScorer(scorer)
    hint = "give a name, a function from a group and a context to an array, or a subclass of Scorer"
    raise UsageError(f"{scorer!r} is no scorer", hint=hint)


def _installed() -> dict[str, EntryPoint]:
    """The entry points of other packages by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
