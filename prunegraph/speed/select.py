"""From a speed-up, a latency or a largest loss to the units that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import onnx_ir as ir

from prunegraph.analysis.selection import Selection
from prunegraph.bench.device_table import LatencyTable
from prunegraph.bench.profile import profile
from prunegraph.bench.results import Comparison
from prunegraph.bench.stats import PairedRatio
from prunegraph.clock import Clock
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.graph import Graph
from prunegraph.observe.divergence import divergence
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.budget import cost
from prunegraph.passes.choose.meet_time import OVER, UNDER, TimedPlan, TimeMet, meet_speedup
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.rewrite.for_runtime import FormTrial, suit_runtime, write_forms
from prunegraph.report import Drop, SpeedReport
from prunegraph.speed.blocks import blocks_of
from prunegraph.speed.drop import judge_drop, largest_removal
from prunegraph.speed.harm import Harm, harm_cache, harm_table
from prunegraph.speed.measure import measure_table, table_cache
from prunegraph.speed.plan import Planner
from prunegraph.speed.refine import held_out, local_search
from prunegraph.speed.timer import ROUNDS, TABLE_ROUNDS, Timer
from prunegraph.speed.times import Times, times_of
from prunegraph.speed.uniform import OneRatio

FORMS_AT = 2.0
"""How many times faster the model is about that equal forms are tried on, where no speed is asked for."""

Chosen = tuple[Selection, tuple[str, ...], SpeedReport]
"""The units that stay, the forms to write, and what was measured."""


def select_by_speed(graph: Graph, scores: Scores, amount: Amount, data: Data | None, clock: Clock) -> Chosen:
    """The units that stay, the forms to write, and what was measured.

    With data the levels of every group are chosen by a dynamic programme over measured time and measured harm; without,
    or where all layers shall keep equally much, one ratio is for all groups.  Either way the result is timed beside the
    original, and corrected until it fits.

    Args:
        graph: The analysed model.
        scores: Of all groups that may get smaller.
        amount: What was asked for: a speed-up, a latency, or a largest loss.
        data: What harm is measured on.
        clock: Told of the steps.

    Raises:
        UsageError: even with next to nothing left the model is not that fast; the message says how fast it is.
    """
    search = SpeedSearch(graph, scores, amount, data, clock)
    return search.within_drop() if amount.max_drop is not None else search.meet(search.speedup())


class SpeedSearch:
    """What all plans of one model share: its tables of time and of harm, and a timer."""

    def __init__(self, graph: Graph, scores: Scores, amount: Amount, data: Data | None, clock: Clock) -> None:
        """Keep what is asked for; tables are made when they are needed.

        Args:
            graph: See `select_by_speed`.
            scores: See there.
            amount: See there.
            data: See there.
            clock: See there.
        """
        self.graph, self.scores, self.amount, self.data, self.clock = graph, scores, amount, data, clock
        self.timer = Timer(amount.ep, amount.timing)
        self.blocks = blocks_of(graph, set(scores))
        self.cost = cost(graph.analysis, graph.normalized)
        self.one_ratio = OneRatio(graph, scores, amount, self.cost)
        self._forms: tuple[FormTrial, ...] | None = None
        self._slim: dict[str, ir.Model] = {}
        self._timed: dict[str, Comparison] = {}

    # ---- what is asked for ---------------------------------------------------------------------------------------

    def speedup(self) -> float:
        """How many times faster the result shall be: what was asked for, or what a latency comes to here.

        Raises:
            UsageError: the original is as fast as that.
        """
        factor = self.amount.speedup or 1.0
        if self.amount.latency_ms is None:
            return factor
        whole = self.given.whole_ms if self.given is not None else self._whole_ms()
        for_latency = whole / self.amount.latency_ms
        if max(for_latency, factor) <= 1:
            hint = "ask for less, or for a speedup"
            raise UsageError(f"the original takes {whole:.3g} ms, which is within the latency asked for", hint=hint)
        return max(for_latency, factor)

    def _whole_ms(self) -> float:
        with self.clock.step("time the original"):
            timed = self.timer.pair(self.graph.original, self.graph.original)
        return timed.results[0].median_ms

    # ---- tables --------------------------------------------------------------------------------------------------

    @property
    def given(self) -> LatencyTable | None:
        """The table of another device, if one is given."""
        return self.amount.table if isinstance(self.amount.table, LatencyTable) else None

    @cached_property
    def table(self) -> LatencyTable:
        """The latency table: given, cached, or measured now."""
        if self.given is not None:
            return self.given
        with self.clock.step("time table"):
            return measure_table(
                self.graph,
                self.blocks,
                self.timer,
                align=self.amount.align,
                forms=self.forms,
                cache=table_cache(),
                progress=self.clock.count,
            )

    @cached_property
    def times(self) -> Times:
        """What every block saves."""
        return times_of(self.table, self.blocks)

    @cached_property
    def harm(self) -> Harm:
        """Measures harm on the data."""
        assert self.data is not None
        with self.clock.step("observe"):
            return Harm(self.graph, self.data, cache=harm_cache())

    @cached_property
    def harms(self) -> dict[str, dict[int, float]]:
        """What every level of every group does to the outputs."""
        harm = self.harm
        with self.clock.step("harm table"):
            return harm_table(self.blocks, self.scores, self.amount.align, harm.of, self.clock.count)

    def planner(self, *, inner: bool = True) -> Planner:
        """Makes plans of least harm within a time.

        Args:
            inner: Whether dims inside of heads may go.
        """
        budgets = self.one_ratio.budgets
        return Planner(self.times, self.harms, self.cost, budgets, self.amount.align, inner)

    # ---- forms and timings ---------------------------------------------------------------------------------------

    @property
    def forms(self) -> tuple[str, ...]:
        """The equal forms that are written."""
        if self.given is not None:
            return self.given.forms
        return tuple(trial.name for trial in self.trials if trial.kept)

    @property
    def trials(self) -> tuple[FormTrial, ...]:
        """What the timing of every equal form said."""
        return self._forms or ()

    def try_forms(self, speedup: float) -> None:
        """Time equal forms on a model about as small as the one that is wanted, once.

        Args:
            speedup: How many times faster that shall be.
        """
        if self._forms is None and self.given is None:
            with self.clock.step("forms"):
                self._forms = self._trials(speedup)

    def _trials(self, speedup: float) -> tuple[FormTrial, ...]:
        if self.amount.keep_form:
            return ()
        model = self.graph.apply(self.one_ratio.at(1 - 1 / speedup), verify=False).ir_model
        return suit_runtime(model, lambda first, second: self.timer.ratio(first, second, rounds=TABLE_ROUNDS))[1]

    def slim(self, selection: Selection) -> ir.Model:
        """The slim model in the forms that are written, unproven; the last ones are kept.

        Args:
            selection: What stays.
        """
        key = selection.to_json()
        if key not in self._slim:
            while len(self._slim) > 1:
                self._slim.pop(next(iter(self._slim)))
            self._slim[key] = write_forms(self.graph.apply(selection, verify=False).ir_model, self.forms)
        return self._slim[key]

    def timed(self, selection: Selection) -> PairedRatio:
        """How many times faster than the original a plan is: measured once, or as a table of another device says.

        Args:
            selection: What stays.
        """
        if self.given is not None:
            return self.times.ratio(selection.counts(self.graph.groups))
        key = selection.to_json()
        if key not in self._timed:
            self._timed[key] = self.timer.sure_pair(self.graph.original, self.slim(selection))
        ratio = self._timed[key].results[1].ratio
        assert ratio is not None
        return ratio

    # ---- plans ---------------------------------------------------------------------------------------------------

    def meet(self, speedup: float) -> Chosen:
        """The plan of least harm that is so many times faster, measured.

        Args:
            speedup: How many times faster.

        Raises:
            UsageError: see `select_by_speed`.
        """
        self.try_forms(speedup)
        by_harm = self.data is not None and not self.amount.uniform
        uniform = self._one_ratio(speedup, refused=not by_harm)
        if not by_harm:
            assert uniform is not None
            return self.chosen("one ratio", uniform)
        plans: dict[str, TimeMet[Selection]] = {} if uniform is None else {"one ratio": uniform}
        failure: UsageError | None = None
        for name, inner in self._programmes().items():
            planner = self.planner(inner=inner)
            try:
                with self.clock.step("plan"):
                    plans[name] = meet_speedup(speedup, self.by(planner), self.timed, most=planner.most)
            except UsageError as error:
                failure = failure or error
        if not plans:
            assert failure is not None
            raise failure
        harm = {name: self.harm.of(met.best.plan) for name, met in plans.items()}
        near = {name for name, met in plans.items() if met.best.ratio.median <= OVER * speedup} or set(plans)
        best = min(near, key=lambda name: harm[name])
        chosen, searched = plans[best], dict[str, float]()
        if self.amount.search:
            chosen, searched = self.refined(chosen)
        return self.chosen(best, chosen, harm=harm, searched=searched)

    def refined(self, met: TimeMet[Selection]) -> tuple[TimeMet[Selection], dict[str, float]]:
        """The plan after a local search, where that is as fast, and the harm on held-out examples before and after.

        Args:
            met: The plan.
        """
        counts = met.best.plan.counts(self.graph.groups)
        searched, judged = held_out(self.harm.outputs)

        def harms(kept: Mapping[str, int]) -> tuple[float, float]:
            slim = self.harm.slim(self.one_ratio.best(kept))
            return divergence(slim, searched), divergence(slim, judged)

        with self.clock.step("search"):
            result = local_search(counts, self.times, harms, 60 * self.amount.search, align=self.amount.align or 1)
        plan = self.one_ratio.best(result.counts)
        ratio = self.timed(plan)
        if result.after >= result.before or not UNDER * met.asked <= ratio.median:
            return met, {**result.to_dict(), "after": result.before}
        best = TimedPlan(met.best.removal, plan, ratio)
        sure = UNDER * met.asked <= ratio.low and ratio.high <= OVER * met.asked
        return TimeMet(met.asked, best, (*met.tried, best), sure), result.to_dict()

    def _programmes(self) -> dict[str, bool]:
        """The plans of the programme that are compared as whole models, and whether dims inside of heads may go."""
        both = any(block.inner for block in self.blocks)
        return {"measured harm": False} | ({"measured harm, dims of heads too": True} if both else {})

    def _one_ratio(self, speedup: float, *, refused: bool) -> TimeMet[Selection] | None:
        """One ratio for all, measured; None where it is not that fast and other plans may be."""
        with self.clock.step("time"):
            try:
                return meet_speedup(speedup, self.one_ratio.at, self.timed, most=self.one_ratio.most)
            except UsageError:
                if refused:
                    raise
                return None

    def by(self, planner: Planner) -> Callable[[float], Selection]:
        """From the share of the time that is to be saved to what stays, the best units of every group.

        Args:
            planner: Makes the plans.
        """
        return lambda removal: self.one_ratio.best(planner.plan(removal))

    def within_drop(self) -> Chosen:
        """The fastest plan that loses no more by a metric on the data than is allowed.

        Raises:
            UsageError: no plan loses so little.
        """
        limit, data = self.amount.max_drop, self.data
        assert data is not None and limit is not None
        self.try_forms(FORMS_AT)
        inputs = self.graph.inputs(data)
        make: Callable[[float], Selection]
        if self.amount.uniform:
            make, most, plan = self.one_ratio.at, self.one_ratio.most, "one ratio"
        else:
            planner = self.planner()
            make, most, plan = self.by(planner), planner.most, "measured harm"

        def judged(removal: float) -> Drop:
            slim = self.harm.slim(make(removal))
            return judge_drop(self.graph.original, slim, inputs, self.amount.metric, limit)

        with self.clock.step("largest removal"):
            removal, drop = largest_removal(judged, limit, most, self.clock.count)
        selection = make(removal)
        ratio = self.timed(selection)
        best = TimedPlan(removal, selection, ratio)
        return self.chosen(plan, TimeMet(ratio.median, best, (best,)), drop=drop)

    def chosen(self, plan: str, met: TimeMet[Selection], **more: Any) -> Chosen:
        """The plan with its report.

        Args:
            plan: How it was made.
            met: What was measured.
            more: Fields of the report.
        """
        selection, names = met.best.plan, self.forms
        report = SpeedReport(
            self.amount.ep if self.given is None else self.given.provider,
            met,
            forms=self.trials,
            plan=plan,
            settings={"protocol": self.timer.protocol, **self.amount.timing},
            budgets=self._budgets(selection),
            predicted=self.given is not None,
            **more,
        )
        if self.given is not None:
            return selection, names, report
        with self.clock.step("report"):
            return selection, names, replace(report, **self._measured(selection, names))

    def _measured(self, selection: Selection, names: tuple[str, ...]) -> dict[str, Any]:
        """What is reported besides what was promised: the other protocol, the same form, a profile."""
        original, slim = self.graph.original, self.slim(selection)
        timed = self._timed[selection.to_json()]
        other = self.timer.other()
        formed = write_forms(original, names) if names else None
        return {
            "latency_ms": (timed.results[0].median_ms, timed.results[1].median_ms),
            "other": {other.protocol: other.ratio(original, slim, rounds=TABLE_ROUNDS // 2)},
            "same_form": None if formed is None else self.timer.ratio(formed, slim, rounds=ROUNDS),
            "profile": self._profiles({"original": original, "slim": slim}),
        }

    def _profiles(self, models: Mapping[str, ir.Model]) -> dict[str, dict[str, float]]:
        try:
            return {
                name: profile(ir.to_proto(model).SerializeToString(), self.amount.ep, **self.amount.timing)
                for name, model in models.items()
            }
        except PruneGraphError:  # a provider without a profile is no reason to fail
            return {}

    def _budgets(self, selection: Selection) -> dict[str, tuple[float, float]]:
        left = self.cost(selection.counts(self.graph.groups))
        return {name: (limit, left[name]) for name, limit in self.one_ratio.budgets.items()}
