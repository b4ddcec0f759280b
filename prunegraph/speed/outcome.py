"""A plan that was chosen, with all that its report says: both protocols, the same form, budgets, a profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from prunegraph.analysis.selection import Selection
from prunegraph.errors import PruneGraphError
from prunegraph.graph import Graph
from prunegraph.passes.choose.meet_time import TimeMet
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.rewrite.for_runtime import write_forms
from prunegraph.report import SpeedReport
from prunegraph.speed.search import SpeedSearch
from prunegraph.speed.timer import ROUNDS, TABLE_ROUNDS


@dataclass(frozen=True, slots=True)
class Chosen:
    """A plan by speed.

    Attributes:
        graph: The model that it cuts: turned, where narrower streams wanted that.
        scores: Of all that it cuts.
        selection: What stays.
        forms: The equal forms to write.
        report: What was measured.
    """

    graph: Graph
    scores: Scores
    selection: Selection
    forms: tuple[str, ...]
    report: SpeedReport


def chosen(search: SpeedSearch, plan: str, met: TimeMet[Selection], **more: Any) -> Chosen:
    """The plan with its report.

    Args:
        search: What it was made by.
        plan: How it was made.
        met: What was measured.
        more: Fields of the report.
    """
    selection, given = met.best.plan, search.given
    left = search.cost(selection.counts(search.graph.groups))
    report = SpeedReport(
        search.amount.ep if given is None else given.provider,
        met,
        forms=search.trials,
        plan=plan,
        settings={"protocol": search.timer.protocol, **search.amount.timing},
        budgets={name: (limit, left[name]) for name, limit in search.one_ratio.budgets.items()},
        predicted=given is not None,
        **more,
    )
    if given is None:
        with search.clock.step("report"):
            report = replace(report, **_measured(search, selection))
    return Chosen(search.graph, search.scores, selection, search.forms, report)


def _measured(search: SpeedSearch, selection: Selection) -> dict[str, Any]:
    """What is reported besides what was promised: the other protocol, the same form, a profile."""
    original, slim = search.graph.original, search.slim(selection)
    timed = search.compared(selection)
    timer, other = search.timer, search.timer.other()
    measured: dict[str, Any] = {
        "latency_ms": (timed.results[0].median_ms, timed.results[1].median_ms),
        "other": {other.protocol: other.ratio(original, slim, rounds=TABLE_ROUNDS // 2)},
        "profile": {},
    }
    try:
        measured["profile"] = dict(zip(("original", "slim"), timer.profiles(original, slim), strict=True))
    except PruneGraphError:  # a provider without a profile is no reason to fail
        pass
    if search.forms:
        measured["same_form"] = timer.ratio(write_forms(original, search.forms), slim, rounds=ROUNDS)
    return measured
