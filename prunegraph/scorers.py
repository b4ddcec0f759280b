"""The scorers that come with the package, and what one of your own is made from.

A scorer is a frozen dataclass whose fields are its options: `pg.prune_graph(model, scorer=pg.scorers.Sap(k=7))`.
"""

from prunegraph.passes.score import (
    Activation,
    Cahp,
    Context,
    Magnitude,
    Michel,
    Obs,
    Random,
    Sap,
    Scorer,
    ScoringReport,
    Snp,
    Taylor,
    scorer_names,
)

__all__ = [
    "Activation",
    "Cahp",
    "Context",
    "Magnitude",
    "Michel",
    "Obs",
    "Random",
    "Sap",
    "Scorer",
    "ScoringReport",
    "Snp",
    "Taylor",
    "scorer_names",
]
