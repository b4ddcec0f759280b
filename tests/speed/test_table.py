"""Tables on the command line, what they foretell, and estimates for hardware that is not here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.bench.device_table import Cut, LatencyTable
from prunegraph.cli import app
from prunegraph.passes.choose.request import Amount
from prunegraph.speed import DEVICES, Device, estimate_ms, find_device, latency_table
from prunegraph.speed.cuts import EVERYTHING, cut_model
from prunegraph.speed.here import planned_blocks
from prunegraph.speed.times import times_of
from tests.graphs.blocks import transformer_block
from tests.speed.machine import machine, network, time_of

__all__ = ["machine"]
pytestmark = pytest.mark.usefixtures("machine")


def test_a_table_is_printed_written_drawn_and_measured_once(tmp_path: Path, machine: list[str]) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    arguments = ["table", str(tmp_path / "model.onnx")]
    outputs = ["-o", str(tmp_path / "table.json"), "--plot", str(tmp_path / "table.png")]
    run = CliRunner().invoke(app, [*arguments, *outputs])
    assert run.exit_code == 0, run.stderr
    assert EVERYTHING in run.stdout and "in turns" in run.stdout
    table = LatencyTable.load(tmp_path / "table.json")
    assert table.forms and table.groups == {"ffn.0": 64, "ffn.1": 64, "ffn.2": 64}
    assert (tmp_path / "table.png").stat().st_size > 1000
    timed = machine.count(EVERYTHING)
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert machine.count(EVERYTHING) == timed and LatencyTable.from_dict(json.loads(printed.stdout)) == table
    CliRunner().invoke(app, [*arguments, "--again"])
    assert machine.count(EVERYTHING) == timed + 1


def test_a_few_cuts_foretell_the_time_of_any_plan() -> None:
    graph = pg.analyze(transformer_block())
    amount = Amount(keep_form=True)
    times = times_of(latency_table(graph, amount, cached=False), blocks := planned_blocks(graph, amount))
    assert [len(block.inner) for block in blocks] == [2, 0, 2, 0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        kept: dict[str, int] = {}
        for block in blocks:
            for group in block.groups:
                if kept.get(block.main.id) != 0:
                    least = block.least if group is block.main else group.units // 4
                    kept[group.id] = int(rng.integers(least, group.units + 1))
        left = time_of(cut_model(graph, Cut("a plan", kept))) / time_of(graph.original)
        assert times.left(kept) == pytest.approx(left, rel=0.08)


def test_more_is_measured_where_time_does_not_run_along_a_line(
    machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = pg.analyze(network())
    latency_table(graph, Amount(keep_form=True), cached=False)
    straight = len(machine)
    machine.clear()
    monkeypatch.setattr("tests.speed.machine.time_of", lambda model: time_of(model) ** 2)
    latency_table(graph, Amount(keep_form=True), cached=False)
    assert (straight, len(machine)) == (4, 6)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_an_estimate_falls_with_what_goes_and_says_that_it_is_one(device: Device) -> None:
    graph = pg.analyze(transformer_block())
    table = latency_table(graph, estimate=device, whole_ms=7.0)
    assert table.protocol == "estimate" and table.provider.startswith("estimate for") and table.whole_ms == 7.0
    ratios = {cut.name: cut.ratio.median for cut in table.cuts}
    assert all(ratio > 1 for ratio in ratios.values()) and max(ratios, key=ratios.__getitem__) == EVERYTHING


def test_a_roofline_takes_the_longer_of_arithmetic_and_traffic() -> None:
    graph = pg.analyze(network())
    device = replace(find_device("h100"), start_us=0.0)
    fast, wide = replace(device, gflops=1e12), replace(device, gbytes=1e12)
    macs = graph.apply(pg.Selection({}), verify=False).report.macs[0]
    assert estimate_ms(graph, wide) == pytest.approx(2 * macs / device.gflops / 1e6, rel=1e-3)
    numbers = estimate_ms(graph, fast) * device.gbytes * 1e6 / 4
    assert numbers > graph.params
    assert max(estimate_ms(graph, fast), estimate_ms(graph, wide)) <= estimate_ms(graph, device)
    with pytest.raises(pg.UsageError, match="nothing is known"):
        find_device("abacus")


def test_an_estimate_on_the_command_line_times_nothing(tmp_path: Path, machine: list[str]) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    run = CliRunner().invoke(app, ["table", str(tmp_path / "model.onnx"), "--estimate", "orin-nano"])
    assert run.exit_code == 0 and "Estimated, not measured" in run.stdout and not machine
