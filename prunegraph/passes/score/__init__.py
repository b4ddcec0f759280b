"""Scorers: for every unit of a group a number, high for what should stay."""

from prunegraph.passes.score.activation import Activation
from prunegraph.passes.score.base import (
    Account,
    Context,
    ReportTable,
    Scorer,
    ScorerLike,
    Scorers,
    Scores,
    ScoringReport,
)
from prunegraph.passes.score.by_kind import FALLBACK, KindScorers, needs_data, resolve_scorers, score, score_with
from prunegraph.passes.score.cahp import Cahp
from prunegraph.passes.score.magnitude import Magnitude
from prunegraph.passes.score.michel import Michel
from prunegraph.passes.score.obs import Obs
from prunegraph.passes.score.observed import observe_for
from prunegraph.passes.score.random import Random
from prunegraph.passes.score.registry import SCORERS, FunctionScorer, as_scorer, make_scorer, scorer_names
from prunegraph.passes.score.sap import Sap
from prunegraph.passes.score.snp import Snp
from prunegraph.passes.score.stand_in import with_stand_ins
from prunegraph.passes.score.taylor import Taylor

__all__ = [
    "FALLBACK",
    "SCORERS",
    "Account",
    "Activation",
    "Cahp",
    "Context",
    "FunctionScorer",
    "KindScorers",
    "Magnitude",
    "Michel",
    "Obs",
    "Random",
    "ReportTable",
    "Sap",
    "Scorer",
    "ScorerLike",
    "Scorers",
    "Scores",
    "ScoringReport",
    "Snp",
    "Taylor",
    "as_scorer",
    "make_scorer",
    "needs_data",
    "observe_for",
    "resolve_scorers",
    "score",
    "score_with",
    "scorer_names",
    "with_stand_ins",
]
