"""One model at several speeds: what is shared is made once, and the folder holds what was promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.export.report import render
from prunegraph.passes.choose.meet_time import OVER, UNDER
from prunegraph.speed import sweep
from prunegraph.speed.cuts import EVERYTHING
from tests.speed.machine import DATA, machine, network

__all__ = ["machine"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("machine")]


def test_versions_are_made_from_one_analysis_and_one_table(machine: list[str]) -> None:
    steps: list[str] = []
    data = pg.Data(DATA)
    versions = sweep(network(), [2, 1.5, 50], pg.Amount(align=1), data=data, evaluate=data, progress=steps.append)
    assert list(versions.results) == [1.5, 2.0] and list(versions.refused) == [50]
    assert machine.count(EVERYTHING) == 1 and steps.count("analyze") == 1
    for speedup, result in versions.results.items():
        assert result.speed is not None and result.report.verify is not None and result.report.verify.ok
        assert UNDER * speedup <= result.speed.met.best.ratio.median <= OVER * speedup
    page = render(versions.results[2.0].facts(), ".md")
    assert "## Speed" in page and "timed in blocks" in page
    points = versions.points()
    assert [point["name"] for point in points] == ["original", "1.5x", "2x"]
    assert points[0]["latency_ms"] > points[1]["latency_ms"] > points[2]["latency_ms"]
    assert versions.metric == "agreement" and "original" in versions.front() and "2x" in versions.front()


def test_the_folder_holds_models_plans_numbers_a_plot_and_a_report(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **DATA)
    arguments = ["sweep", str(tmp_path / "model.onnx"), "--speedup", "1.5,2", "--data", str(tmp_path / "data.npz")]
    run = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out")])
    assert run.exit_code == 0, run.stderr
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        *(f"model-{name}" for name in ("1.5x.onnx", "1.5x.plan.json", "2x.onnx", "2x.plan.json")),
        *("sweep.json", "sweep.png", "report.html"),
    }
    numbers = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert numbers["metric"] == "harm" and [point["name"] for point in numbers["points"]] == ["original", "1.5x", "2x"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "harm over latency" in page and "timed in blocks" in page and "Where the slim model spends its time" in page
    assert "1.5x" in run.stdout
    again = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out")])
    assert again.exit_code == 1 and "exists already" in again.stderr


def test_what_is_no_list_of_speeds_is_refused(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    run = CliRunner().invoke(app, ["sweep", str(tmp_path / "model.onnx"), "--speedup", "2,x", "-o", "out"])
    assert run.exit_code == 2 and "no list of numbers" in run.stderr
    with pytest.raises(pg.UsageError, match="no speed"):
        sweep(network(), [])
    with pytest.raises(pg.UsageError, match="no metric 'nope'"):
        sweep(network(), [2], metric="nope")
