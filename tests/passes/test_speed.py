"""A speed-up that is asked for, on a machine whose time is the number of weights: met, planned by harm, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.bench.stats import PairedRatio
from prunegraph.cli import app
from prunegraph.passes.choose.meet_time import OVER, UNDER
from prunegraph.speed.select import Timer
from tests.graphs.builder import Builder, layer_norm, linear

pytestmark = pytest.mark.slow

WIDTH, FFN, LAYERS, CLASSES = 16, 64, 3, 5
FLOOR = 500


def network() -> onnx.ModelProto:
    """Residual FFN blocks of which the last hardly matters."""
    g = Builder("blocks")
    x = g.input("x", "batch", WIDTH)
    for k in range(LAYERS):
        hidden = g("Relu", linear(g, x, f"up{k}", WIDTH, FFN))
        out = linear(g, hidden, f"down{k}", FFN, WIDTH)
        if k == LAYERS - 1:
            g.initializers[f"w_down{k}"] = g.initializers[f"w_down{k}"] * np.float32(0.01)
        x = layer_norm(g, g("Add", x, out), f"ln{k}", WIDTH)
    g.output(linear(g, x, "classes", WIDTH, CLASSES), "batch", CLASSES)
    return g.model()


def weights(model: ir.Model) -> int:
    return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)


def time_of(model: ir.Model) -> float:
    fused = sum(node.op_type == "Add" for node in model.graph)
    return FLOOR + weights(model) + 50 * fused


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio(self: Timer, first: ir.Model, second: ir.Model, rounds: int = 0) -> PairedRatio:
        faster = time_of(first) / time_of(second)
        return PairedRatio(faster, faster * 0.995, faster * 1.005)

    monkeypatch.setattr(Timer, "ratio", ratio)


DATA = {"x": np.random.default_rng(0).normal(size=(96, WIDTH)).astype(np.float32)}


@pytest.mark.parametrize("asked", [1.5, 2.0, 3.0])
def test_without_data_one_ratio_meets_the_time(asked: float) -> None:
    result = pg.prune_graph(network(), pg.Amount(speedup=asked, align=1))
    assert result.speed is not None and result.report.verify is not None
    assert UNDER * asked <= time_of(ir.from_proto(network())) / time_of(result.ir_model) <= OVER * asked
    assert len({group.after for group in result.report.groups}) == 1 and result.speed.plan == "one ratio"


def test_with_data_what_matters_least_goes_first_and_harm_is_less() -> None:
    result = pg.prune_graph(network(), pg.Amount(speedup=2.0, align=1), data=pg.Data(DATA), scorer="activation")
    assert result.speed is not None and result.speed.plan == "measured harm"
    harm = result.speed.harm
    assert harm["measured harm"] < harm["one ratio"]
    left = {group.id: group.after for group in result.report.groups}
    assert left["ffn.2"] == min(left.values()) < 16
    assert UNDER * 2 <= result.speed.met.best.ratio.median <= OVER * 2


def test_a_faster_form_is_written_proven_and_told() -> None:
    plain = pg.prune_graph(network(), pg.Amount(speedup=2.0, align=1, keep_form=True))
    formed = pg.prune_graph(network(), pg.Amount(speedup=2.0, align=1))
    assert formed.speed is not None and [trial.kept for trial in formed.speed.forms] == [True]
    assert formed.speed.same_form is not None and plain.speed is not None and plain.speed.same_form is None
    assert weights(formed.ir_model) > weights(plain.ir_model), "the form's gain leaves more units"
    assert formed.verify().ok


def test_what_cannot_be_had_is_refused_with_the_fastest() -> None:
    with pytest.raises(pg.UsageError, match="100 times as fast cannot be had"):
        pg.prune_graph(network(), pg.Amount(speedup=100.0))


@pytest.mark.parametrize(
    "fields", [{"speedup": 0.5}, {"speedup": 2, "ratio": 0.5}, {"speedup": 2, "macs": 0.5}, {"speedup": 2, "drop": "a"}]
)
def test_a_speed_up_stands_alone(fields: dict[str, float]) -> None:
    with pytest.raises(pg.UsageError) as error:
        pg.Amount(**fields)
    assert error.value.hint


def test_on_the_command_line(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **DATA)
    arguments = ["prune", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "slim.onnx"), "--speedup", "2"]
    run = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path / "data.npz"), "--json"])
    assert run.exit_code == 0, run.stderr
    told = json.loads(run.stdout)["speed"]
    assert told["asked"] == 2 and told["ep"] == "cpu" and told["plan"] in ("measured harm", "one ratio")
    said = CliRunner().invoke(app, arguments)
    assert "speed: " in said.stderr and "of 2 asked" in said.stderr
    verify = ["verify", str(tmp_path / "model.onnx"), str(tmp_path / "slim.onnx")]
    assert CliRunner().invoke(app, verify).exit_code == 0
