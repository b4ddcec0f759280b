"""From a speed-up, a latency or a largest loss to the units that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prunegraph.analysis.selection import Selection
from prunegraph.clock import Clock
from prunegraph.errors import UsageError
from prunegraph.graph import Graph
from prunegraph.observe.divergence import divergence
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.meet_time import OVER, UNDER, TimedPlan, TimeMet, meet_speedup
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.report import Drop
from prunegraph.speed.drop import judge_drop, largest_removal
from prunegraph.speed.outcome import Chosen, chosen
from prunegraph.speed.refine import held_out, local_search
from prunegraph.speed.search import Make, SpeedSearch

FORMS_AT = 2.0
"""How many times faster the model is about that equal forms are tried on, where no speed is asked for."""

ONE_RATIO, BY_HARM, WITH_DIMS = "one ratio", "measured harm", "measured harm, dims of heads too"
"""How plans are made."""

PATIENCE = 2
"""Narrower streams in a row whose plans do more harm than the best, after which no more are tried."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan that meets the time, judged as a whole model.

    Attributes:
        name: How it was made.
        search: What it was made by.
        met: How fast it is.
        harm: How far its outputs are from the original's.
    """

    name: str
    search: SpeedSearch
    met: TimeMet[Selection]
    harm: float

    def rank(self, speedup: float) -> tuple[bool, float]:
        """Lower is better: one that is near the speed before one that is beyond it, the one of less harm before others.

        Args:
            speedup: What was asked for.
        """
        return self.met.best.ratio.median > OVER * speedup, self.harm


def select_by_speed(graph: Graph, scores: Scores, amount: Amount, data: Data | None, clock: Clock) -> Chosen:
    """The units that stay, the forms to write, and what was measured.

    With data the levels of every group are chosen by a dynamic programme over measured time and measured harm, with
    residual streams as wide as does least harm; without, or where all layers shall keep equally much, one ratio is for
    all groups.  Either way the result is timed beside the original, and corrected until it fits.

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
    return within_drop(search) if amount.max_drop is not None else meet(search, search.speedup())


def meet(search: SpeedSearch, speedup: float) -> Chosen:
    """The plan of least harm that is so many times faster, measured.

    Args:
        search: The model with its tables.
        speedup: How many times faster.

    Raises:
        UsageError: see `select_by_speed`.
    """
    search.try_forms(speedup)
    if search.data is None or search.amount.uniform:
        return chosen(search, ONE_RATIO, planned(search, ONE_RATIO, speedup))
    best: Candidate | None = None
    failure: UsageError | None = None
    harms: dict[str, float] = {}
    for name in (BY_HARM, *([WITH_DIMS] if search.has_inner else []), ONE_RATIO):
        try:
            candidate = judged(search, name, speedup)
        except UsageError as error:
            failure = failure or error
            continue
        harms[name] = candidate.harm
        best = min(filter(None, (best, candidate)), key=lambda each: each.rank(speedup))
    for candidate in narrower_plans(search, best, speedup):
        harms[candidate.name] = candidate.harm
        best = min(filter(None, (best, candidate)), key=lambda each: each.rank(speedup))
    if best is None:
        assert failure is not None
        raise failure
    met, searched = refined(best) if search.amount.search else (best.met, {})
    return chosen(best.search, best.name, met, harm=harms, searched=searched)


def planned(search: SpeedSearch, name: str, speedup: float) -> TimeMet[Selection]:
    """A plan that meets the time.

    Args:
        search: The model with its tables.
        name: How it is made: `ONE_RATIO`, `BY_HARM` or `WITH_DIMS`.
        speedup: How many times faster.

    Raises:
        UsageError: see `select_by_speed`.
    """
    with search.clock.step("time" if name == ONE_RATIO else "plan"):
        if name == ONE_RATIO:
            return meet_speedup(speedup, search.one_ratio.at, search.timed, most=search.one_ratio.most)
        make, most = search.programme(inner=name == WITH_DIMS)
        return meet_speedup(speedup, make, search.timed, most=most)


def judged(search: SpeedSearch, name: str, speedup: float) -> Candidate:
    """A plan that meets the time, with its harm; see `planned`."""
    met = planned(search, name, speedup)
    with search.clock.step("judge plans"):
        harm = search.harm.of(met.best.plan)
    return Candidate(", ".join(filter(None, (name, search.title))), search, met, harm)


def narrower_plans(search: SpeedSearch, best: Candidate | None, speedup: float) -> Iterator[Candidate]:
    """Plans with narrower residual streams, the widest first.

    A stream that does more harm by itself than the best plan ends it, since all narrower ones do more yet; and so do
    two plans in a row that do more.

    Args:
        search: The model with its tables.
        best: The plan of least harm with whole streams, if there is one.
        speedup: How many times faster.
    """
    name = best.name if best is not None and best.name != ONE_RATIO else BY_HARM
    least, worse = best.harm if best is not None else float("inf"), 0
    for narrow in search.narrower():
        if narrow.width_time * OVER * speedup < 1:
            return  # it is faster than that with nothing else cut
        with search.clock.step("narrower streams"):
            alone = narrow.harm.of(narrow.one_ratio.best(narrow.width))
        if alone >= least:
            return
        try:
            candidate = judged(narrow, name, speedup)
        except UsageError:  # not fast enough: still narrower streams may be
            continue
        yield candidate
        worse = worse + 1 if candidate.harm >= least else 0
        if worse == PATIENCE:
            return
        least = min(least, candidate.harm)


def refined(candidate: Candidate) -> tuple[TimeMet[Selection], dict[str, float]]:
    """The plan after a local search, where that is as fast, and the harm on held-out examples before and after.

    Args:
        candidate: The plan.
    """
    search, met = candidate.search, candidate.met
    counts = met.best.plan.counts(search.graph.groups)
    searched, held = held_out(search.harm.outputs)

    def harms(kept: Mapping[str, int]) -> tuple[float, float]:
        slim = search.harm.slim(search.one_ratio.best(kept))
        return divergence(slim, searched), divergence(slim, held)

    with search.clock.step("search"):
        result = local_search(
            counts, search.full.times, harms, 60 * search.amount.search, align=search.amount.align or 1
        )
    plan = search.one_ratio.best(result.counts)
    ratio = search.timed(plan)
    if result.after >= result.before or not UNDER * met.asked <= ratio.median:
        return met, {**result.to_dict(), "after": result.before}
    best = TimedPlan(met.best.removal, plan, ratio)
    sure = UNDER * met.asked <= ratio.low and ratio.high <= OVER * met.asked
    return TimeMet(met.asked, best, (*met.tried, best), sure), result.to_dict()


def within_drop(search: SpeedSearch) -> Chosen:
    """The fastest plan that loses no more by a metric on the data than is allowed.

    Args:
        search: The model with its tables.

    Raises:
        UsageError: no plan loses so little.
    """
    search.try_forms(FORMS_AT)
    best, met, drop = search, *_fastest(search)
    for narrow in search.narrower():
        try:
            narrow_met, narrow_drop = _fastest(narrow)
        except UsageError:  # the narrower stream loses more by itself
            break
        if narrow_met.best.ratio.median <= met.best.ratio.median:
            break
        best, met, drop = narrow, narrow_met, narrow_drop
    name = ONE_RATIO if search.amount.uniform else ", ".join(filter(None, (BY_HARM, best.title)))
    return chosen(best, name, met, drop=drop)


def _fastest(search: SpeedSearch) -> tuple[TimeMet[Selection], Drop]:
    """The fastest plan of one width within the loss, and what it loses.

    Raises:
        UsageError: no plan loses so little.
    """
    limit, data = search.amount.max_drop, search.data
    assert data is not None and limit is not None
    inputs = search.graph.inputs(data)
    by_ratio = (search.one_ratio.at, search.one_ratio.most)
    plans: tuple[Make, float] = by_ratio if search.amount.uniform else search.programme(inner=True)
    make, most = plans

    def judge(removal: float) -> Drop:
        slim = search.harm.slim(make(removal))
        return judge_drop(search.graph.original, slim, inputs, search.amount.metric, limit)

    with search.clock.step("largest removal"):
        removal, drop = largest_removal(judge, limit, most, search.clock.count, least=1 - search.width_time)
    selection = make(removal)
    ratio = search.timed(selection)
    best = TimedPlan(removal, selection, ratio)
    return TimeMet(ratio.median, best, (best,)), drop
