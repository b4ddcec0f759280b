"""The script of a bundle where it is meant to run: on 64-bit ARM and in an old Python; `.ci/devices` brings both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest

import prunegraph as pg
from prunegraph.bench.device_table import LatencyTable
from prunegraph.bench.results import Comparison
from prunegraph.export.bundle.build import bundle
from prunegraph.speed.device import versions_of
from tests.export.test_bundle import unpacked
from tests.graphs.cli import classifier

pytestmark = pytest.mark.slow

DEVICES = Path(__file__).resolve().parents[2] / ".venv" / "devices"
ARM, OLD = DEVICES / "arm", DEVICES / "old"
WITHIN = 1e-5


def needs(folder: Path, what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (folder / "ready").exists(), reason=f"no {what}: .ci/devices brings it")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unpacked bundle of a model and its slim version, as old as JetPack 4.6 reads, with versions for a table."""
    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), "model.onnx")
    pg.prune_graph("model.onnx", 0.5).save("slim.onnx")
    versions = versions_of(pg.analyze("model.onnx"), pg.Amount(kinds="ffn"))
    written = bundle(
        ["model.onnx", "slim.onnx"], "b.zip", stack="jetpack4.6", static={"sequence": 7}, versions=versions
    )
    folder = unpacked(written.path)
    stated = json.loads((folder / "bundle.json").read_text())
    stated["settings"]["warmup"], stated["table"]["settings"]["rounds"] = 1, 6
    (folder / "bundle.json").write_text(json.dumps(stated))
    return folder


def run(device: Path, *command: str | Path) -> dict[str, Any]:
    """What the script writes, run by this command: everything that it does."""
    arguments = ["--ep", "cpu", "--rounds", "6", "--table", "--energy", "0.1"]
    process = subprocess.run([*map(str, command), *arguments], cwd=device, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    results: dict[str, Any] = json.loads((device / "results.json").read_text())
    return results


def check(device: Path, results: dict[str, Any]) -> None:
    """The outputs are those that the models have here, and everything is read back."""
    assert results["refused"] == {} and results["parity"]["cpu"].keys() == {"model.onnx", "slim.onnx"}
    assert all(error < WITHIN for errors in results["parity"]["cpu"].values() for error in errors.values())
    assert [row.model for row in Comparison.from_dict(results).results] == ["model.onnx", "slim.onnx"]
    assert LatencyTable.load(device / "results.json").cuts


@needs(ARM, "emulated ARM")
def test_everything_runs_on_64_bit_arm(device: Path) -> None:
    site = f"PYTHONPATH={ARM / 'site'}"
    emulator = (ARM / "qemu-aarch64-static", "-cpu", "cortex-a72", "-L", ARM / "root", "-E", site)
    # A child of an emulated process would be a file of ARM that this system starts by itself.
    results = run(device, *emulator, ARM / "root" / "usr" / "bin" / "python3.11", "run.py", "--in-process")
    assert results["environment"]["machine"] == "aarch64"
    check(device, results)


@needs(OLD, "Python 3.6")
def test_everything_runs_in_python_3_6_with_the_runtime_of_jetpack_4_6(device: Path) -> None:
    results = run(device, OLD / "bin" / "python", "run.py")
    assert results["environment"]["python"].startswith("3.6.")
    assert results["environment"]["onnxruntime"] == "1.10.0"
    check(device, results)
