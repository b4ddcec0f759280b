"""Joules of a run, from trees of files as the kernels of PCs and of Jetson boards show them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from prunegraph.bench import compare, energy
from prunegraph.bench.results import Comparison
from prunegraph.cli import app
from prunegraph.errors import UsageError
from tests.graphs.cli import classifier

RAPL = {
    "class/powercap/intel-rapl:0/name": "package-0",
    "class/powercap/intel-rapl:0/energy_uj": "1000000",
    "class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "class/powercap/intel-rapl:0:0/name": "core",
    "class/powercap/intel-rapl:0:0/energy_uj": "700000",
    "class/powercap/intel-rapl-mmio:0/name": "package-0",
    "class/powercap/intel-rapl-mmio:0/energy_uj": "5",
}
INA = "class/hwmon/hwmon3"
JETPACK_6 = {
    f"{INA}/name": "ina3221",
    f"{INA}/in1_label": "VDD_IN",
    f"{INA}/in1_input": "5000",
    f"{INA}/curr1_input": "2400",
    f"{INA}/in2_label": "NC",
    f"{INA}/in2_input": "0",
    f"{INA}/curr2_input": "0",
    f"{INA}/in7_label": "sum of shunt voltages",
    f"{INA}/in7_input": "90",
    "class/hwmon/hwmon0/name": "thermal",
    "class/hwmon/hwmon0/power1_input": "1",
    "class/hwmon/hwmon4/name": "ina226",
    "class/hwmon/hwmon4/power1_input": "3500000",
}
IIO = "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
JETPACK_4 = {f"{IIO}/rail_name_0": "POM_5V_IN", f"{IIO}/in_power0_input": "4120"}
PMIC = "   3V7_WL_SW_A current(0)=0.5A\n   3V7_WL_SW_V volt(8)=4.0V\n     VDD_CORE_A current(7)=2.0A\n"
PMIC += "     VDD_CORE_V volt(15)=0.8V\n     EXT5V_V volt(24)=5.1V\n"


@pytest.fixture(autouse=True)
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_output", lambda *command: "")


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return str(root)


def test_packages_are_counted_whole_and_their_counters_wrap(tmp_path: Path) -> None:
    before = energy.counters(tree(tmp_path, RAPL))
    assert before == {"package-0": (1e6, 262143328850)}
    assert energy.joules_between(before, {"package-0": (3.5e6, 262143328850)}) == {"package-0": 2.5}
    assert energy.joules_between({"package-0": (90.0, 100.0)}, {"package-0": (10.0, 100.0)}) == {"package-0": 20e-6}
    assert energy.counters(str(tmp_path / "none")) == {}


@pytest.mark.parametrize(
    ("files", "watts"),
    [(JETPACK_6, {"VDD_IN": 12.0, "ina226": 3.5}), (JETPACK_4, {"POM_5V_IN": 4.12}), ({}, {})],
    ids=["JetPack 6", "JetPack 4", "neither"],
)
def test_sensors_of_boards_tell_watts_by_rail(tmp_path: Path, files: dict[str, str], watts: dict[str, float]) -> None:
    assert energy.watts_now(tree(tmp_path, files)) == pytest.approx(watts)


def test_commands_are_asked_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = {"vcgencmd": PMIC, "nvidia-smi": "71.30\n[N/A]\n"}
    monkeypatch.setattr(energy, "_output", lambda *command: printed[command[0]])
    assert energy.watts_now(str(tmp_path)) == pytest.approx({"pmic": 3.6, "gpu0": 71.3})
    assert energy.pmic_watts("error=1") is None


def test_a_counter_gives_joules_of_each_model(tmp_path: Path) -> None:
    """One arm adds 3 J a run to the counter, the other 1 J; nothing is added at rest."""
    root = tree(tmp_path, RAPL)
    counter = tmp_path / "class/powercap/intel-rapl:0/energy_uj"

    def arm(joules: int) -> Any:
        return lambda: counter.write_text(str(int(counter.read_text()) + joules * 10**6))

    each, idle = energy.joules_a_run([arm(3), arm(1)], 0.02, energy.Meter(root))
    assert each == [{"package-0": pytest.approx(3.0)}, {"package-0": pytest.approx(1.0)}]
    assert idle == {"package-0": 0.0}


def test_a_power_gives_joules_by_the_time_that_it_was_drawn(tmp_path: Path) -> None:
    meter = energy.Meter(tree(tmp_path, JETPACK_4))
    assert meter
    meter.start()
    joules, seconds = meter.stop()
    assert joules == pytest.approx({"POM_5V_IN": 4.12 * seconds}) and seconds > 0


def test_bench_tells_them_or_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    settings: dict[str, Any] = {"warmup": 1, "rounds": 6, "sequence": 8, "energy_seconds": 0.02}
    meter = energy.Meter
    module = importlib.import_module("prunegraph.bench.compare")  # whose name is that of its function
    monkeypatch.setattr(module, "Meter", lambda: meter(str(tmp_path)))
    with pytest.raises(UsageError, match="does not tell what energy it uses") as error:
        compare([tmp_path / "model.onnx"], **settings)
    assert "energy_uj" in error.value.hint
    tree(tmp_path, JETPACK_4)
    comparison = compare([tmp_path / "model.onnx"], **settings)
    (row,) = comparison.results
    assert row.joules["POM_5V_IN"] > 0
    written = tmp_path / "results.json"
    written.write_text(json.dumps(comparison.to_dict(samples=True)))
    assert Comparison.from_dict(json.loads(written.read_text())).results[0].joules == row.joules
    wide = CliRunner(env={"COLUMNS": "200"})
    shown = wide.invoke(app, ["bench", "--results", str(written)])
    assert shown.exit_code == 0 and "J a run" in shown.stdout and "POM_5V_IN" in shown.stdout
    assert "J a run" not in wide.invoke(app, ["bench", "--results", str(without(comparison, written))]).stdout


def without(comparison: Comparison, path: Path) -> Path:
    """The same results where nobody measured energy."""
    rows = tuple(dataclasses.replace(row, joules={}) for row in comparison.results)
    path.write_text(json.dumps(dataclasses.replace(comparison, results=rows).to_dict(samples=True)))
    return path


def test_it_is_python_3_6_and_needs_nothing() -> None:
    code = Path(energy.__file__).read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(code, feature_version=(3, 6))) if isinstance(node, ast.Import)]
    names = {alias.name for node in imports for alias in node.names}
    assert names == {"glob", "os", "re", "shutil", "subprocess", "threading", "time", "typing"}
