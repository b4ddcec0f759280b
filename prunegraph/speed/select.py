"""From a speed-up that was asked for to the units that stay."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from prunegraph.analysis.selection import Selection
from prunegraph.bench.stats import PairedRatio
from prunegraph.clock import Clock
from prunegraph.errors import NothingToPrune, UsageError
from prunegraph.graph import Graph
from prunegraph.observe.divergence import Outputs, divergence, outputs_of
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.allocate import allocate
from prunegraph.passes.choose.meet_time import OVER, TimeMet, meet_speedup
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.repair import gather_moments, repaired
from prunegraph.passes.rewrite.for_runtime import FormTrial, suit_runtime, write_forms
from prunegraph.report import SpeedReport
from prunegraph.speed.tables import harm_table, items_of, keep_best, time_table
from prunegraph.speed.timer import ROUNDS, TABLE_ROUNDS, Timer

EXAMPLES = 256
"""Examples that harm is measured on, the first of the data."""

MOST = 0.999
"""The largest ratio: one unit stays."""


def select_by_speed(
    graph: Graph, scores: Scores, amount: Amount, data: Data | None, clock: Clock
) -> tuple[Selection, tuple[str, ...], SpeedReport]:
    """The units that stay, the forms to write, and what was measured.

    With data the levels of every group are chosen by a dynamic programme over measured time and measured harm; without,
    or where all layers shall keep equally much, one ratio is for all groups.  Either way the result is timed beside the
    original, and corrected until it fits.

    Args:
        graph: The analysed model.
        scores: Of all groups that may get smaller.
        amount: What was asked for; its `speedup` is set.
        data: What harm is measured on.
        clock: Told of the steps.

    Raises:
        UsageError: even with next to nothing left the model is not that fast; the message says how fast it is.
    """
    assert amount.speedup is not None
    timer = Timer(amount.ep, amount.timing)
    search = _Search(graph, scores, amount, timer, clock)
    with clock.step("forms"):
        forms = search.find_forms()
    names = tuple(trial.name for trial in forms if trial.kept)
    with clock.step("time"):
        uniform = meet_speedup(amount.speedup, search.by_ratio, lambda plan: search.timed(plan, names), most=MOST)
    best, plan, harm = uniform, "one ratio", dict[str, float]()
    if data is not None and not amount.uniform:
        planned, harm = search.by_harm(data, names, uniform)
        if planned is not None:
            best, plan = planned, "measured harm"
    same = timer.ratio(write_forms(graph.original, names), search.slim(best.best.plan, names)) if names else None
    report = SpeedReport(amount.ep, best, same, forms, plan, harm, dict(amount.timing))
    return best.best.plan, names, report


class _Search:
    """What all plans of one call share: the model, its scores, and a timer."""

    def __init__(self, graph: Graph, scores: Scores, amount: Amount, timer: Timer, clock: Clock) -> None:
        self.graph, self.scores, self.timer, self.clock = graph, scores, timer, clock
        self.amount = amount
        self.plain = replace(amount, speedup=None)

    def by_ratio(self, removal: float) -> Selection:
        """One ratio for everything that may go."""
        try:
            targets = self.graph.targets(replace(self.plain, ratio=min(removal, MOST)), self.scores.scorers)
        except NothingToPrune:  # too little to take a single unit
            return Selection({})
        return self.graph.select(self.scores, targets)

    def slim(self, selection: Selection, forms: tuple[str, ...] = ()) -> ir.Model:
        """The slim model, unproven."""
        return write_forms(self.graph.apply(selection, verify=False).ir_model, forms)

    def timed(self, selection: Selection, forms: tuple[str, ...], rounds: int = ROUNDS) -> PairedRatio:
        """How many times faster than the original."""
        return self.timer.ratio(self.graph.original, self.slim(selection, forms), rounds=rounds)

    def find_forms(self) -> tuple[FormTrial, ...]:
        """Equal forms that are faster, tried on a model about as small as the one that is wanted."""
        if self.amount.keep_form:
            return ()
        assert self.amount.speedup is not None
        model = self.slim(self.by_ratio(1 - 1 / self.amount.speedup))
        return suit_runtime(model, lambda first, second: self.timer.ratio(first, second, rounds=TABLE_ROUNDS))[1]

    def by_harm(
        self, data: Data, forms: tuple[str, ...], uniform: TimeMet[Selection]
    ) -> tuple[TimeMet[Selection] | None, dict[str, float]]:
        """The plan of least measured harm, where it does less of it than one ratio; and the harm of both."""
        groups = [group for group in self.graph.groups if group.id in self.scores]
        harm = _Harm(self.graph, data)
        with self.clock.step("time table"):
            times = time_table(
                groups, self.scores, self.amount.align, lambda plan: 1 / self.timed(plan, forms, TABLE_ROUNDS).median
            )
            floor = 1 - sum(max(each.values()) for each in times.values())
        with self.clock.step("harm table"):
            harms = harm_table(groups, self.scores, self.amount.align, harm.of, self.clock.count)
        items = items_of(times, harms)

        def planned(removal: float) -> Selection:
            budget = max((1 - removal) - floor, 1e-6)
            levels = allocate(items, budget)
            return keep_best(groups, self.scores, {name: int(level.name) for name, level in levels.items()})

        assert self.amount.speedup is not None
        with self.clock.step("plan"):
            try:
                met = meet_speedup(self.amount.speedup, planned, lambda plan: self.timed(plan, forms), most=1 - floor)
            except UsageError:  # one ratio reached it, so this plan's table is off: one ratio it is
                return None, {}
            both = {"measured harm": harm.of(met.best.plan), "one ratio": harm.of(uniform.best.plan)}
        near = met.best.ratio.median <= max(OVER * self.amount.speedup, uniform.best.ratio.median)
        return (met if near and both["measured harm"] <= both["one ratio"] else None), both


class _Harm:
    """Measures how far the outputs of a re-fitted slim model are from those of the original."""

    def __init__(self, graph: Graph, data: Data) -> None:
        self.graph = graph
        self.inputs = graph.inputs(data)
        model, analysis = graph.normalized.model, graph.analysis
        self.outputs: Outputs = outputs_of(model, analysis, self.inputs.first(EXAMPLES))
        self.moments = gather_moments(model, analysis, self.inputs)

    def of(self, selection: Selection) -> float:
        """The divergence after the repair that follows a proof."""
        if not selection.keep:
            return 0.0
        model, analysis = self.graph.normalized.model, self.graph.analysis
        keeps = selection.keeps(analysis.groups)
        slim, _ = repaired(model, analysis, keeps, self.inputs, moments=self.moments)
        cut = slim if slim is not None else self.graph.apply(selection, verify=False).ir_model
        return divergence(cut, self.outputs)
