"""What goes of an analysed model, whoever says so: dead units, what a speed leaves, or what an amount takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prunegraph.analysis.selection import Selection
from prunegraph.graph import Graph
from prunegraph.passes.choose.head_filter import Filtered
from prunegraph.passes.choose.scored import Scores
from prunegraph.pipeline import filter_heads, select_units
from prunegraph.prepare import rotated_and_scored
from prunegraph.report import SpeedReport
from prunegraph.request import Request
from prunegraph.result import PruneResult
from prunegraph.speed import candidates, select_by_speed


@dataclass(frozen=True, slots=True)
class Choice:
    """What goes, and how that came about.

    Attributes:
        graph: The model that the selection is of: turned, or with its constant units in biases, where that was wanted.
        selection: What stays.
        scores: What it was made by, if anything was scored.
        forms: Equal forms that the result is written in, see `passes.rewrite.for_runtime`.
        filtered: What candidate filtering did, if it was asked for.
        speed: How a speed-up that was asked for was found.
    """

    graph: Graph
    selection: Selection
    scores: Scores | None = None
    forms: tuple[str, ...] = ()
    filtered: Filtered | None = None
    speed: SpeedReport | None = None

    def carried_out(self, request: Request) -> PruneResult:
        """The slim model, proven if that is asked for.

        Raises:
            VerificationFailed: it does not compute what the masked original computes.
        """
        result = self.graph.apply(self.selection, verify=request.verify, data=request.data, forms=self.forms)
        report = result.report if self.scores is None else replace(result.report, accounts=self.scores.reports)
        return replace(result, filtered=self.filtered, speed=self.speed, report=report, scores=self.scores)


def choose(graph: Graph, request: Request) -> Choice:
    """What goes of a model.

    Args:
        graph: The analysed model.
        request: How much goes, which units first, and on what data.

    Raises:
        NothingToPrune: nothing is left that could go.
        UsageError: the request does not fit the model.
    """
    if request.amount.dead:
        return Choice(*graph.without_dead())
    if request.amount.by_speed:
        amount = candidates(graph, request.amount, dims=request.data is not None)
        graph, scores, _ = rotated_and_scored(graph, amount, request)
        plan = select_by_speed(graph, scores, request.amount, request.data, graph.clock)
        choice = Choice(plan.graph, plan.selection, plan.scores, plan.forms, speed=plan.report)
    else:
        graph, scores, targets = rotated_and_scored(graph, request.amount, request)
        choice = Choice(graph, select_units(graph, scores, targets, graph.clock), scores)
    if request.amount.filtering is None:
        return choice
    filtered = filter_heads(choice.graph, choice.selection, request.amount.filtering, request.data, choice.graph.clock)
    return replace(choice, selection=filtered.selection, filtered=filtered)
