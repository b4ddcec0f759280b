"""Goals beside a speed-up: a latency, budgets, a largest loss, a device that is elsewhere; and what is remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunegraph as pg
from prunegraph.bench.device_table import LatencyTable
from prunegraph.passes.choose.meet_time import UNDER
from prunegraph.speed.cuts import EVERYTHING
from tests.speed.machine import DATA, machine, network, time_of

__all__ = ["machine"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("machine")]


def count(result: pg.PruneResult) -> dict[str, int]:
    return {group.id: group.after for group in result.report.groups}


def test_a_latency_is_a_speed_up_of_the_original_here() -> None:
    whole = time_of(ir.from_proto(network())) / 1000
    result = pg.prune_graph(network(), pg.Amount(latency_ms=whole / 2, align=1))
    assert result.speed is not None and result.speed.met.asked == pytest.approx(2)
    assert result.speed.latency_ms is not None and result.speed.latency_ms[1] <= 1.03 * whole / 2
    with pytest.raises(pg.UsageError, match="within the latency asked for"):
        pg.prune_graph(network(), pg.Amount(latency_ms=2 * whole))


@pytest.mark.parametrize("data", [None, DATA], ids=["one ratio", "by harm"])
def test_several_goals_hold_at_once(data: dict[str, np.ndarray] | None) -> None:
    amount = pg.Amount(speedup=1.3, params=0.5, macs=0.9, align=1)
    result = pg.prune_graph(network(), amount, data=None if data is None else pg.Data(data), scorer="magnitude")
    params, macs = result.report.params, result.report.macs
    assert params[1] <= 0.505 * params[0] and macs[1] <= 0.9 * macs[0]
    assert result.speed is not None and result.speed.met.best.ratio.median >= 1.3 * UNDER
    assert result.speed.budgets["macs"] == pytest.approx((0.9, macs[1] / macs[0]))


def test_a_budget_may_be_a_number() -> None:
    params = pg.prune_graph(network(), pg.Amount(params=0.5, align=1)).report.params
    assert pg.prune_graph(network(), pg.Amount(params=params[0] // 2, align=1)).report.params == params


def test_the_fastest_within_a_loss_loses_no_more() -> None:
    data = pg.Data(DATA)
    results = {
        limit: pg.prune_graph(network(), pg.Amount(max_drop=limit, metric="agreement", align=1), data=data)
        for limit in (2.0, 20.0)
    }
    for limit, result in results.items():
        assert result.speed is not None and result.speed.drop is not None
        assert result.speed.drop.drop <= limit and result.speed.drop.metric == "agreement"
        agreement = result.evaluate(data, "agreement").scores[1].value
        assert 100 * (1 - agreement) == pytest.approx(result.speed.drop.drop, abs=1e-4)
    speeds = [result.speed.met.best.ratio.median for result in results.values() if result.speed]
    assert speeds[0] < speeds[1]
    with pytest.raises(pg.UsageError, match="measured on data"):
        pg.prune_graph(network(), pg.Amount(max_drop=1))


def test_a_metric_that_does_not_exist_is_refused_before_the_model_is_read() -> None:
    with pytest.raises(pg.UsageError, match="no metric 'nope'"):
        pg.prune_graph("no-such-model.onnx", pg.Amount(max_drop=1, metric="nope"))


def test_a_largest_loss_without_data_is_refused_before_the_model_is_read() -> None:
    with pytest.raises(pg.UsageError, match="measured on data"):
        pg.prune_graph("no-such-model.onnx", pg.Amount(max_drop=1))


def test_a_table_of_another_device_is_planned_for_without_a_timing(tmp_path: Path, machine: list[str]) -> None:
    amount = pg.Amount(speedup=2.0, align=1)
    here = pg.prune_graph(network(), amount, data=pg.Data(DATA), scorer="activation")
    (path,) = (tmp_path / "cache" / "latency").glob("*.json")
    machine.clear()
    there = pg.prune_graph(network(), replace(amount, table=path), data=pg.Data(DATA), scorer="activation")
    assert not machine and there.speed is not None and there.speed.predicted
    assert there.speed.met.best.ratio.median == pytest.approx(2, rel=0.05)
    truly = time_of(ir.from_proto(network())) / time_of(there.ir_model)
    assert truly == pytest.approx(2, rel=0.06) and here.forms == there.forms
    other = LatencyTable.load(path)
    for table, problem in ((replace(other, groups={}), "units of"), (replace(other, cuts=()), "says nothing of")):
        with pytest.raises(pg.UsageError, match=problem):
            pg.prune_graph(network(), replace(amount, table=table), data=pg.Data(DATA))


def test_tables_of_time_and_harm_are_remembered(tmp_path: Path, machine: list[str]) -> None:
    amount = pg.Amount(speedup=2.0, align=1)
    first = pg.prune_graph(network(), amount, data=pg.Data(DATA), scorer="activation")
    assert EVERYTHING in machine
    (notes,) = (tmp_path / "cache" / "harm").glob("*.jsonl")
    lines = notes.read_text().splitlines()
    notes.write_text("\n".join([*lines[:-1], lines[-1][:10]]) + "\n")  # as if it had been stopped while it wrote
    machine.clear()
    second = pg.prune_graph(network(), amount, data=pg.Data(DATA), scorer="activation")
    assert count(first) == count(second)
    assert EVERYTHING not in machine and len(notes.read_text().splitlines()) == len(lines) + 1


def test_a_search_keeps_what_gains_on_held_out_examples() -> None:
    amount = pg.Amount(speedup=2.0, align=1, search=0.02)
    result = pg.prune_graph(network(), amount, data=pg.Data(DATA), scorer="activation")
    assert result.speed is not None
    harms = result.speed.searched
    assert harms["after"] <= harms["before"] and result.speed.met.best.ratio.median >= 2 * UNDER


@pytest.mark.parametrize(
    "fields",
    [
        {"latency_ms": 0},
        {"max_drop": -1},
        {"max_drop": True},
        {"max_drop": 1, "speedup": 2},
        {"speedup": 0.5},
        {"speedup": 2, "ratio": 0.5},
        {"speedup": 2, "drop": "a"},
        {"search": 1},
        {"table": "none.json", "speedup": 2},
        {"params": 50},
        {"bytes": 1500.5},
    ],
)
def test_goals_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(pg.UsageError) as error:
        pg.Amount(**fields)
    assert error.value.hint
