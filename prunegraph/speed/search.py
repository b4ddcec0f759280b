"""What all plans of one model share: its tables of time and of harm, a timer, and the forms that it is written in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import onnx_ir as ir

from prunegraph.analysis.selection import Selection
from prunegraph.bench.device_table import LatencyTable
from prunegraph.bench.results import Comparison
from prunegraph.bench.stats import PairedRatio
from prunegraph.clock import Clock
from prunegraph.errors import UsageError
from prunegraph.graph import Graph
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.budget import cost
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.rewrite.for_runtime import FormTrial, suit_runtime, write_forms
from prunegraph.speed.blocks import blocks_of
from prunegraph.speed.harm import Harm, harm_cache, harm_table
from prunegraph.speed.measure import measure_table, table_cache
from prunegraph.speed.plan import Planner
from prunegraph.speed.timer import TABLE_ROUNDS, Timer
from prunegraph.speed.times import Times, times_of
from prunegraph.speed.uniform import OneRatio
from prunegraph.speed.widths import narrowed, time_of_width, width_cuts, width_groups, without_widths

Make = Callable[[float], Selection]
"""From the share of the time that is to be saved to what stays."""


class SpeedSearch:
    """What all plans of one model share.

    Attributes:
        width: By group id how wide residual streams stay in all of its plans; empty where they stay whole.
        full: The same with whole streams, whose tables of time and of harm hold for all widths.
    """

    def __init__(self, graph: Graph, scores: Scores, amount: Amount, data: Data | None, clock: Clock) -> None:
        """Keep what is asked for; tables are made when they are needed.

        Args:
            graph: The analysed model.
            scores: Of all groups that may get smaller.
            amount: What was asked for: a speed-up, a latency, or a largest loss.
            data: What harm is measured on.
            clock: Told of the steps.
        """
        self.width_groups = width_groups(graph, amount) if data is not None else ()
        if self.width_groups:
            amount = without_widths(graph, amount)
        self.graph, self.scores, self.amount, self.data, self.clock = graph, scores, amount, data, clock
        self.timer = Timer(amount.ep, amount.timing)
        self.blocks = blocks_of(graph, set(scores))
        self.cost = cost(graph.analysis, graph.normalized)
        self.one_ratio = OneRatio(graph, scores, amount, self.cost)
        self.width: Mapping[str, int] = {}
        self.full = self
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
                widths=self.width_groups,
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

    def compared(self, selection: Selection) -> Comparison:
        """A plan beside the original, measured once.

        Args:
            selection: What stays.
        """
        key = selection.to_json()
        if key not in self._timed:
            self._timed[key] = self.timer.sure_pair(self.graph.original, self.slim(selection))
        return self._timed[key]

    def timed(self, selection: Selection) -> PairedRatio:
        """How many times faster than the original a plan is: measured once, or as a table of another device says.

        Args:
            selection: What stays.
        """
        if self.given is not None:
            faster = self.full.times.ratio(selection.counts(self.graph.groups)).median / self.width_time
            return PairedRatio(faster, faster, faster)
        ratio = self.compared(selection).results[1].ratio
        assert ratio is not None
        return ratio

    # ---- programmes ----------------------------------------------------------------------------------------------

    @property
    def has_inner(self) -> bool:
        """Whether there are dims inside of heads that may go."""
        return any(block.inner for block in self.blocks)

    def programme(self, *, inner: bool) -> tuple[Make, float]:
        """Plans of least summed harm within a time, with streams of this width, and the most that they save.

        Args:
            inner: Whether dims inside of heads may go.
        """

        def left(kept: Mapping[str, int]) -> Mapping[str, float]:
            return self.cost({**self.width, **kept})

        planner = Planner(self.full.times, self.full.harms, left, self.one_ratio.budgets, self.amount.align, inner)

        def make(removal: float) -> Selection:
            beside = max(0.0, 1 - (1 - removal) / self.width_time)
            return self.one_ratio.best({**self.width, **planner.plan(beside)})

        return make, 1 - self.width_time * (1 - planner.most)

    @property
    def width_time(self) -> float:
        """The share of the time that is left with streams of this width and nothing else cut."""
        return (time_of_width(self.full.table, self.width) or 1.0) if self.width else 1.0

    def narrower(self) -> Iterator[SpeedSearch]:
        """The same with narrower residual streams, the widest first; the harm of every other group is that found here.

        Only where a table says what narrower streams save, and none is narrow already.
        """
        if self.width or not self.width_groups or self.data is None:
            return
        for cut in width_cuts(self.width_groups, self.amount.align):
            if time_of_width(self.table, cut.kept) is not None:
                yield self.at_width(cut.kept)

    def at_width(self, kept: Mapping[str, int]) -> SpeedSearch:
        """The same with streams of these widths.

        Args:
            kept: By group id how wide they stay.
        """
        assert self.data is not None
        graph, scores = narrowed(self.graph, self.scores, kept, self.amount.rotate, self.data)
        other = copy.copy(self)
        other.graph, other.scores, other.width = graph, scores, dict(kept)
        other.one_ratio = OneRatio(graph, scores, self.amount, self.cost)
        other._slim, other._timed = {}, {}
        if graph is not self.graph:
            vars(other).pop("harm", None)
        return other

    @property
    def title(self) -> str:
        """What plans of these widths are called beside others."""
        if not self.width:
            return ""
        return ", ".join(f"{name} {count} of {self.graph.group(name).units}" for name, count in self.width.items())
