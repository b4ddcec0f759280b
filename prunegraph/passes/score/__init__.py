"""Scorers: for every unit of a group a number, high for what should stay."""

from prunegraph.passes.score.base import (
    ACCOUNTS,
    ACROSS,
    COUNTS,
    GRADIENTS,
    NEEDS,
    SCORERS,
    Account,
    Context,
    Scorer,
    find_scorer,
    score,
    score_with,
    scorer,
    scores_kind,
)
from prunegraph.passes.score.magnitude import magnitude
from prunegraph.passes.score.michel import michel
from prunegraph.passes.score.observed import observe_for
from prunegraph.passes.score.random import random
from prunegraph.passes.score.sap import sap
from prunegraph.passes.score.taylor import taylor

__all__ = [
    "ACCOUNTS",
    "ACROSS",
    "COUNTS",
    "GRADIENTS",
    "NEEDS",
    "SCORERS",
    "Account",
    "Context",
    "Scorer",
    "find_scorer",
    "magnitude",
    "michel",
    "observe_for",
    "random",
    "sap",
    "score",
    "score_with",
    "scorer",
    "scores_kind",
    "taylor",
]
