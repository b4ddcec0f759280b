"""The table of scorers, and what a scorer is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer may look at: the normalized model, its analysis, a seed."""

    model: ir.Model
    analysis: Analysis
    seed: int = 0


Scorer = Callable[[Group, Context], Scores]
"""Returns an array of the group's shape `(*rows, units)`; high means keep."""

SCORERS: dict[str, Scorer] = {}


def scorer(name: str) -> Callable[[Scorer], Scorer]:
    """Register a scorer under a name."""

    def register(function: Scorer) -> Scorer:
        SCORERS[name] = function
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
