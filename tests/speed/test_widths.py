"""Residual widths in plans by speed: narrower where that does less harm, in the basis that suits it, and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import prunegraph as pg
from prunegraph.bench.device_table import LatencyTable
from prunegraph.passes.choose.meet_time import OVER, UNDER
from prunegraph.speed import latency_table
from prunegraph.speed.cuts import EVERYTHING
from prunegraph.speed.harm import Harm
from prunegraph.speed.widths import SHARES, width_cuts, width_groups
from tests.graphs.builder import Builder, layer_norm, linear
from tests.speed.machine import machine, time_of

__all__ = ["machine"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("machine", "two_widths")]

INPUTS, WIDTH, FFN, LAYERS, CLASSES = 12, 32, 24, 2, 5
SPEED = pg.Amount(speedup=1.6, align=1)
DATA = pg.Data({"x": np.random.default_rng(0).normal(size=(64, INPUTS)).astype(np.float32)})


@pytest.fixture
def two_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.speed.widths.SHARES", (3 / 4, 1 / 2))


def streams(*, pre_norm: bool, directions: int = WIDTH) -> onnx.ModelProto:
    """FFN blocks on a stream that takes so many directions."""
    g = Builder(f"stream {pre_norm} {directions}")
    x = linear(g, g.input("x", "batch", INPUTS), "embed", INPUTS, WIDTH)
    for k in range(LAYERS):
        h = layer_norm(g, x, f"ln{k}", WIDTH) if pre_norm else x
        out = linear(g, g("Relu", linear(g, h, f"up{k}", WIDTH, FFN)), f"down{k}", FFN, WIDTH)
        x = g("Add", x, out)
        x = x if pre_norm else layer_norm(g, x, f"ln{k}", WIDTH)
    x = layer_norm(g, x, "last", WIDTH) if pre_norm else x
    g.output(linear(g, x, "classes", WIDTH, CLASSES), "batch", CLASSES)
    every = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0][:, :directions]
    for name in ("embed", *(f"down{k}" for k in range(LAYERS))):
        for part in ("w", "b"):
            array = g.initializers[f"{part}_{name}"]
            g.initializers[f"{part}_{name}"] = (array @ every @ every.T).astype(np.float32)
    return g.model()


def widths(result: pg.PruneResult) -> list[int]:
    return [group.after for group in result.report.groups if group.kind == "hidden"]


def test_a_stream_that_takes_few_directions_gets_narrower_before_anything_else(tmp_path: Path) -> None:
    model = streams(pre_norm=True, directions=12)
    result = pg.prune_graph(model, SPEED, data=DATA)
    speed = result.speed
    assert speed is not None and speed.plan.startswith("measured harm, hidden.0")
    assert widths(result) and widths(result)[0] < WIDTH
    assert speed.harm[speed.plan] == min(speed.harm.values()) < speed.harm["measured harm"] / 2
    assert UNDER * 1.6 <= time_of(ir.from_proto(model)) / time_of(result.ir_model) <= OVER * 1.6
    assert result.report.rotate is not None and "hidden.0" in result.report.rotate.rotation
    assert result.verify().ok
    onnx.save(model, tmp_path / "model.onnx")
    slim, plan = result.save(tmp_path / "slim.onnx")
    text = plan.read_text() if plan.suffix == ".json" else slim.read_text()
    assert '"rotate"' in text and "hidden.0" in pg.Selection.from_json(text).keep


def test_a_post_norm_stream_is_cut_by_selection_and_a_sweep() -> None:
    result = pg.prune_graph(streams(pre_norm=False), replace(SPEED, speedup=2.5), data=DATA)
    assert result.speed is not None and any("hidden.0" in name for name in result.speed.harm)
    assert result.speed.harm[result.speed.plan] == min(result.speed.harm.values())
    assert result.report.rotate is None or "hidden.0" not in result.report.rotate.rotation
    assert result.verify().ok


def test_a_speed_that_only_narrower_streams_reach_is_reached() -> None:
    model = streams(pre_norm=True, directions=12)
    with pytest.raises(pg.UsageError, match="cannot be had"):
        pg.prune_graph(model, replace(SPEED, speedup=4.2, kinds=("ffn",)), data=DATA)
    result = pg.prune_graph(model, replace(SPEED, speedup=4.2), data=DATA)
    assert result.speed is not None and widths(result) and result.speed.met.best.ratio.median >= UNDER * 4.2


def test_the_fastest_within_a_loss_may_have_a_narrower_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.speed.drop.TRIALS", 4)
    amount = pg.Amount(max_drop=10.0, metric="agreement", align=1)
    result = pg.prune_graph(streams(pre_norm=True, directions=12), amount, data=DATA)
    assert result.speed is not None and result.speed.drop is not None and result.speed.drop.drop <= 10.0
    assert widths(result) and "hidden.0" in result.speed.plan


def test_budgets_hold_beside_narrower_streams() -> None:
    amount = replace(SPEED, macs=0.3, kinds=("ffn", "hidden"))
    result = pg.prune_graph(streams(pre_norm=True, directions=12), amount, data=DATA)
    assert result.report.macs[1] <= 0.3 * result.report.macs[0]
    assert result.speed is not None and any("hidden.0" in name for name in result.speed.harm)


def test_tables_hold_narrower_versions_and_plans_by_them_need_no_timing(machine: list[str]) -> None:
    model = streams(pre_norm=True, directions=12)
    table = latency_table(pg.analyze(model), pg.Amount(align=1))
    names = [cut.name for cut in table.cuts]
    assert names[-1] == EVERYTHING and "hidden.0: 24 of 32" in names and table.groups["hidden.0"] == WIDTH
    assert LatencyTable.from_dict(table.to_dict()) == table
    machine.clear()
    result = pg.prune_graph(model, replace(SPEED, table=table), data=DATA)
    assert not machine and result.speed is not None and result.speed.predicted and widths(result)
    truly = time_of(ir.from_proto(model)) / time_of(result.ir_model)
    assert truly == pytest.approx(1.6, rel=0.08)
    plain = replace(table, cuts=tuple(cut for cut in table.cuts if "hidden" not in cut.name))
    assert not widths(pg.prune_graph(model, replace(SPEED, table=plain), data=DATA))


def test_widths_are_multiples_that_hardware_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.speed.widths.SHARES", SHARES)
    graph = pg.analyze(streams(pre_norm=True))
    (group,) = width_groups(graph, pg.Amount())
    assert [cut.kept["hidden.0"] for cut in width_cuts([group])] == [28, 24, 20, 16]
    assert [cut.kept["hidden.0"] for cut in width_cuts([group], align=8)] == [24, 16]
    assert width_groups(graph, pg.Amount(kinds="ffn")) == width_groups(graph, pg.Amount(uniform=True)) == ()
    assert width_groups(graph, pg.Amount(kinds="hidden")) == (), "with nothing beside it, it is a group like any other"


def test_what_is_known_of_harm_takes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pg.analyze(streams(pre_norm=True))
    selection = pg.Selection({"ffn.0": np.arange(FFN) < 6})
    first = Harm(graph, DATA.opened(), cache=tmp_path).of(selection)

    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("the model was run")

    for name in ("outputs_of", "gather_moments"):
        monkeypatch.setattr(f"prunegraph.speed.harm.{name}", never)
    again = Harm(graph, DATA.opened(), cache=tmp_path)
    assert again.of(selection) == first
    with pytest.raises(AssertionError, match="was run"):
        again.of(pg.Selection({"ffn.0": np.arange(FFN) < 7}))
