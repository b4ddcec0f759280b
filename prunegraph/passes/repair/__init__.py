"""Repair: what reads removed units is re-fitted on calibration data, without gradients and without labels."""

from prunegraph.passes.repair.fit import RIDGE
from prunegraph.passes.repair.outcome import Outcome, Repaired
from prunegraph.passes.repair.repair import SAMPLES, Evidence, evidence, gather_moments, repaired, rewritten, solved
from prunegraph.passes.repair.statistics import Gram
from prunegraph.passes.repair.write import Written, restored

__all__ = [
    "RIDGE",
    "SAMPLES",
    "Evidence",
    "Gram",
    "Outcome",
    "Repaired",
    "Written",
    "evidence",
    "gather_moments",
    "repaired",
    "restored",
    "rewritten",
    "solved",
]
