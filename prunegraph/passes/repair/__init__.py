"""Repair: what reads removed units is re-fitted on calibration data, without gradients and without labels."""

from prunegraph.passes.repair.fit import METHODS, RIDGE
from prunegraph.passes.repair.outcome import Outcome, Repaired
from prunegraph.passes.repair.repair import Changes, repairs
from prunegraph.passes.repair.write import Written, restored, write

__all__ = ["METHODS", "RIDGE", "Changes", "Outcome", "Repaired", "Written", "repairs", "restored", "write"]
