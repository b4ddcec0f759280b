"""What comes before any choice: which groups may get smaller, turned where that helps, and scored."""

from __future__ import annotations

from prunegraph.graph import Graph
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.choose.select_units import Targets
from prunegraph.passes.rotate import groups_to_rotate
from prunegraph.pipeline import rotate
from prunegraph.request import Request


def rotated_and_scored(graph: Graph, amount: Amount, request: Request) -> tuple[Graph, Scores, Targets]:
    """The model with its heads turned where that is wanted, the scores of all groups that get smaller, and how much.

    Args:
        graph: The analysed model.
        amount: How much of which group goes.
        request: By what units are scored, and on what data.
    """
    targets = graph.targets(amount, request.scorers)
    by_data = request.data is not None
    turning = groups_to_rotate(graph.groups, targets.of_group, request.scorers, amount.rotate, by_data)
    if turning:
        graph = rotate(graph, turning, request.data, graph.clock)
    scores = graph.score(request.scorers, request.data, groups=targets.of_group, kept=targets.kept)
    return graph, scores, targets
