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
from prunegraph.cli import app
from prunegraph.passes.choose.meet_time import OVER, UNDER
from tests.speed.machine import DATA, machine, network, time_of, weights

__all__ = ["machine"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("machine")]


@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0])
def test_without_data_one_ratio_meets_the_time(speedup: float) -> None:
    result = pg.prune_graph(network(), pg.Amount(speedup=speedup, align=1))
    assert result.speed is not None and result.report.verify is not None
    assert UNDER * speedup <= time_of(ir.from_proto(network())) / time_of(result.ir_model) <= OVER * speedup
    left = {group.after for group in result.report.groups}
    assert max(left) - min(left) <= 1 and result.speed.plan == "one ratio"


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


def test_on_the_command_line(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **DATA)
    arguments = ["prune", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "slim.onnx"), "--speedup", "2"]
    run = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path / "data.npz"), "--json"])
    assert run.exit_code == 0, run.stderr
    reported = json.loads(run.stdout)["speed"]
    assert set(reported["profile"]) == {"original", "slim"}
    assert reported["settings"]["protocol"] == "turns" and list(reported["other"]) == ["blocks"]
    assert set(reported["profile"]) == {"original", "slim"}
    assert all(ms >= 0 for ms in reported["profile"]["slim"].values())
    assert reported["settings"]["protocol"] == "turns" and list(reported["other"]) == ["blocks"]
    assert reported["asked"] == 2 and reported["ep"] == "cpu" and reported["plan"] in ("measured harm", "one ratio")
    invoked = CliRunner().invoke(app, arguments)
    assert "speed: " in invoked.stderr and "of 2 asked" in invoked.stderr
    verify = ["verify", str(tmp_path / "model.onnx"), str(tmp_path / "slim.onnx")]
    assert CliRunner().invoke(app, verify).exit_code == 0
