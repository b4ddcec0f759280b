"""Prune a neural-network graph: physically smaller, and proven equal to the original minus what was removed."""

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.api import PruneResult, analyze, prune_graph
from prunegraph.errors import PruneGraphError

__all__ = ["Analysis", "Group", "PruneGraphError", "PruneResult", "Selection", "analyze", "prune_graph"]
