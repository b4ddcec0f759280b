"""Scorers: for every unit of a group a number, high for what should stay."""

from prunegraph.passes.score.activation import activation
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
    Scorers,
    check_scorers,
    find_scorer,
    needs_data,
    score,
    score_with,
    scorer,
    scorer_of,
    scores_kind,
)
from prunegraph.passes.score.cahp import cahp
from prunegraph.passes.score.magnitude import magnitude
from prunegraph.passes.score.michel import michel
from prunegraph.passes.score.observed import observe_for
from prunegraph.passes.score.random import random
from prunegraph.passes.score.sap import sap
from prunegraph.passes.score.snp import snp
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
    "Scorers",
    "activation",
    "cahp",
    "check_scorers",
    "find_scorer",
    "magnitude",
    "michel",
    "needs_data",
    "observe_for",
    "random",
    "sap",
    "score",
    "score_with",
    "scorer",
    "scorer_of",
    "scores_kind",
    "snp",
    "taylor",
]
