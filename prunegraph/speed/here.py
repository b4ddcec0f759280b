"""The latency table of a model on the machine at hand, without a plan."""

from __future__ import annotations

from prunegraph.bench.device_table import Cut, LatencyTable
from prunegraph.clock import Clock
from prunegraph.graph import Graph
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.rewrite.for_runtime import suit_runtime
from prunegraph.speed.blocks import TimedBlock, blocks_of
from prunegraph.speed.candidates import candidates
from prunegraph.speed.cuts import cut_model
from prunegraph.speed.measure import measure_table, table_cache
from prunegraph.speed.roofline import Device, estimated_table
from prunegraph.speed.timer import TABLE_ROUNDS, Timer
from prunegraph.speed.widths import width_groups


def latency_table(
    graph: Graph,
    amount: Amount | None = None,
    *,
    estimate: Device | None = None,
    whole_ms: float | None = None,
    cached: bool = True,
    clock: Clock | None = None,
) -> LatencyTable:
    """How fast versions of a model are beside the whole one, measured here, or estimated for a device.

    >>> import prunegraph as pg
    >>> from prunegraph.speed import latency_table
    >>> latency_table(pg.analyze("model.onnx")).save("table.json")  # doctest: +SKIP

    Args:
        graph: The analysed model.
        amount: What it says of kinds, `align`, `ep`, `timing` and `keep_form` counts.
        estimate: Estimate for this device, and time nothing.
        whole_ms: What the whole model takes on that device, where that was measured.
        cached: Whether a table that was measured before will do.
        clock: Told of the steps.

    Raises:
        UsageError: a provider or a size is wrong.
        NothingToPrune: no group could get smaller.
    """
    amount, clock = amount or Amount(), clock or graph.clock
    blocks, widths = planned_blocks(graph, amount), width_groups(graph, amount)
    if estimate is not None:
        return estimated_table(graph, blocks, estimate, align=amount.align, widths=widths, whole_ms=whole_ms)
    timer = Timer(amount.ep, amount.timing)
    with clock.step("forms"):
        forms = () if amount.keep_form else _faster_forms(graph, blocks, timer)
    with clock.step("time table"):
        cache = table_cache() if cached else None
        return measure_table(
            graph,
            blocks,
            timer,
            align=amount.align,
            forms=forms,
            widths=widths,
            cache=cache,
            progress=clock.count,
        )


def planned_blocks(graph: Graph, amount: Amount) -> tuple[TimedBlock, ...]:
    """What a plan with data may cut: what one number is for, and dims of heads that can be turned.

    Args:
        graph: The analysed model.
        amount: What it says of kinds counts.

    Raises:
        NothingToPrune: no group could get smaller.
    """
    return blocks_of(graph, set(graph.targets(candidates(graph, amount, dims=True)).of_group))


def _faster_forms(graph: Graph, blocks: tuple[TimedBlock, ...], timer: Timer) -> tuple[str, ...]:
    half = Cut("half", {block.main.id: max(block.main.least, block.main.units // 2) for block in blocks})
    model = cut_model(graph, half)
    trials = suit_runtime(model, lambda first, second: timer.ratio(first, second, rounds=TABLE_ROUNDS))[1]
    return tuple(trial.name for trial in trials if trial.kept)
