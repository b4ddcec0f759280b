"""Dead: find units that are zero or constant whatever the input, and fold the constant ones into what reads them."""

from prunegraph.passes.dead.choose import select_dead
from prunegraph.passes.dead.fold import Folded, FoldedFeatures, fold_as_planned, fold_constants
from prunegraph.passes.dead.plan import from_plan, to_plan

__all__ = ["Folded", "FoldedFeatures", "fold_as_planned", "fold_constants", "from_plan", "select_dead", "to_plan"]
