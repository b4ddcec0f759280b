"""Scorers: for every unit of a group a number, high for what should stay."""

from prunegraph.passes.score.base import SCORERS, Context, Scorer, find_scorer, score, scorer
from prunegraph.passes.score.magnitude import magnitude
from prunegraph.passes.score.random import random

__all__ = ["SCORERS", "Context", "Scorer", "find_scorer", "magnitude", "random", "score", "scorer"]
