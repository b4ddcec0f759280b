"""Providers in processes of their own: what comes back is what `compare` gives; what goes wrong there is told here."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import venv
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from rich.console import Console
from typer.testing import CliRunner

from prunegraph.bench import PROVIDERS, compare, compare_apart
from prunegraph.bench.apart import _variables
from prunegraph.bench.environment import peak_memory_mib
from prunegraph.bench.optimized import optimize
from prunegraph.bench.results import Comparison
from prunegraph.bench.shapes import parse_shapes, sizes_of
from prunegraph.cli import app
from prunegraph.cli.latency_table import latency_table
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.runtime.inputs import InputSpec
from prunegraph.runtime.plugin import add_plugin
from prunegraph.runtime.providers import require_available
from tests.graphs.cli import classifier

MISSING = [name for name, each in PROVIDERS.items() if each.ep not in ort.get_available_providers()]
QUICK: dict[str, Any] = {"warmup": 1, "rounds": 6, "sequence": 8}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path)
    return path


# --- shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1x128", "ids=", "ids=1xn", "ids=1x-2", "=1x2", "ids=1x2,", "ids=1 x 2"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no NAME=SHAPE") as caught:
        parse_shapes([text])
    assert "--shape input_ids=1x128,8x128" in caught.value.hint


def test_inputs_have_as_many_shapes_or_one() -> None:
    assert parse_shapes(["a=1,2", "b=3x4"]) == [{"a": (1,), "b": (3, 4)}, {"a": (2,), "b": (3, 4)}]
    with pytest.raises(UsageError, match="b has 2 shapes, another input 3"):
        parse_shapes(["a=1,2,3", "b=3,4"])


SPECS = [InputSpec(name, np.dtype("int64"), ("batch", "seq", 4)) for name in ("ids", "mask")]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"idz": (1, 2, 4)}, "no input 'idz'"),
        ({"ids": (1, 2)}, "ids has 3 axes, not 2"),
        ({"ids": (1, 2, 5)}, "4 cannot be 5"),
        ({"ids": (1, 2, 4), "mask": (1, 3, 4)}, "mask: seq cannot be 3, it is 2"),
    ],
)
def test_shapes_that_the_model_cannot_have_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sizes_of(SPECS, shapes)
    assert caught.value.hint


def test_inputs_that_share_a_dim_follow_and_each_size_is_timed(model: Path) -> None:
    assert sizes_of(SPECS, {"ids": (3, 7, 4)}) == {"batch": 3, "seq": 7}
    shapes = parse_shapes(["x=1x4x5,2x6x5"])
    comparison = compare([model, model], shapes=shapes, **QUICK)
    assert [row.inputs["x"] for row in comparison.results] == [(1, 4, 5)] * 2 + [(2, 6, 5)] * 2
    assert [row.ratio is None for row in comparison.results] == [True, False] * 2
    assert all(row.bytes == model.stat().st_size for row in comparison.results)
    assert Comparison.from_dict(json.loads(json.dumps(comparison.to_dict(samples=True)))) == comparison


# --- processes ----------------------------------------------------------------------------------------------------


def test_a_provider_in_its_own_process_gives_what_compare_gives(model: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    comparison = compare_apart(
        [model],
        providers=["cpu"],
        names=["dense"],
        alone=True,
        optimized=True,
        progress=lambda *step: steps.append(step),
        **QUICK,
    )
    assert [(row.provider, row.model, len(row.samples_ms)) for row in comparison.results] == [
        ("cpu", "dense", 6),
        ("cpu", "dense, optimized", 6),
    ]
    assert comparison.environments["cpu"]["onnxruntime"] == ort.__version__
    assert comparison.environments["cpu"]["prunegraph"] == comparison.environment["prunegraph"]
    assert ("cpu: load dense", 0, 2) in steps and ("cpu: time", 6, 6) in steps
    for row in comparison.results:
        assert row.alone is not None and row.alone.peak_memory_mib is not None
        assert row.alone.load_seconds > 0 and 10 < row.alone.peak_memory_mib < 1000
    assert Comparison.from_dict(json.loads(json.dumps(comparison.to_dict(samples=True)))) == comparison
    dense, optimized = comparison.results
    counts = optimize(model, "m", tmp_path / "fused.onnx")
    ops = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert optimized.fused == counts == {op: ops.count(op) for op in counts} and not dense.fused
    out = io.StringIO()
    Console(file=out, width=160).print(latency_table(comparison))
    assert all(word in out.getvalue() for word in ("peak MiB", "alone:", "MB", *counts))
    assert "p90" not in out.getvalue()  # six samples carry none


def test_what_is_refused_there_is_refused_here(model: Path) -> None:
    with pytest.raises(UsageError, match="no dynamic dim named height") as caught:
        compare_apart([model], providers=["cpu"], sizes={"height": 3}, **QUICK)
    assert "its dynamic dims are" in caught.value.hint


def test_a_process_that_crashes_is_an_error_that_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(sys.modules["prunegraph.bench.apart"], "_BOOT", kill)
    with pytest.raises(PruneGraphError, match="the process that ran cpu was ended by signal 11"):
        compare_apart([model], providers=["cpu"], **QUICK)


def test_an_environment_that_lacks_a_package_is_named_with_what_to_install(model: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    python = tmp_path / "empty" / "bin" / "python"
    with pytest.raises(UsageError, match=f"the environment of {python} lacks numpy") as caught:
        compare_apart([model], providers=["cpu"], pythons={"cpu": python}, **QUICK)
    assert "pip install numpy onnx onnx-ir ml_dtypes" in caught.value.hint


def test_another_python_finds_nothing_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert "PYTHONPATH" not in _variables(PROVIDERS["openvino"], "/other/python")
    assert _variables(PROVIDERS["cpu"], sys.executable)["PYTHONPATH"] == "/somewhere"
    overrides = {name: "NVIDIA_TF32_OVERRIDE" in _variables(each, sys.executable) for name, each in PROVIDERS.items()}
    assert {name for name, override in overrides.items() if override} == {"cuda", "tensorrt"}


def test_pythons_are_checked_before_anything_runs(model: Path) -> None:
    with pytest.raises(UsageError, match="no file /no/python"):
        compare_apart([model], providers=["cpu", MISSING[0]], pythons={"": "/no/python"}, **QUICK)
    with pytest.raises(UsageError, match="--python names abacus, which is not timed"):
        compare_apart([model], providers=["cpu"], pythons={"abacus": sys.executable}, **QUICK)


def test_peak_memory_is_that_of_the_process_alone() -> None:
    """What a parent had must not count: `getrusage` of a process that a large one started would say that."""
    ballast = np.ones(2**26, np.uint8)
    code = "from prunegraph.bench.environment import peak_memory_mib as p; a = p(); b = bytearray(2**25); print(a, p())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, process.stdout.split())
    here = peak_memory_mib()
    assert here is not None and ballast.nbytes and 20 < after - before < 40 and before < here


# --- the command --------------------------------------------------------------------------------------------------


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.mark.parametrize(
    "name", [name for name, each in PROVIDERS.items() if each.ep not in ort.get_available_providers()]
)
def test_a_provider_that_is_not_here_is_refused_before_anything_is_timed_with_what_brings_it(
    model: Path, name: str
) -> None:
    for more in ((), ("--ep", f"cpu,{name}")):
        outcome = bench(str(model), "--ep", name, *more)
        assert outcome.exit_code == 2 and outcome.stdout == ""
        assert f"the provider {name} is not in this onnxruntime {ort.__version__}" in outcome.stderr
        assert PROVIDERS[name].install.split(",")[0].split(" (")[0] in " ".join(outcome.stderr.split())


def test_options_of_a_provider_are_passed_as_they_are(model: Path) -> None:
    assert "no EP.KEY=VALUE" in bench(str(model), "--ep-option", "cpu.x").stderr
    outcome = bench(str(model), "--ep-option", "cpu.no_such_option=1", "--rounds", "6", "--size", "sequence=4")
    assert outcome.exit_code == 0, outcome.stderr  # the CPU provider ignores it


def test_shapes_stand_in_the_table(model: Path) -> None:
    outcome = bench(str(model), "--rounds", "6", "--shape", "x=1x4x5,2x6x5")
    assert outcome.exit_code == 0, outcome.stderr
    assert "1x4x5" in outcome.stdout and "2x6x5" in outcome.stdout


# --- plugins ------------------------------------------------------------------------------------------------------


class Device:
    def __init__(self, ep_name: str, **ep_metadata: str) -> None:
        self.ep_name, self.ep_metadata = ep_name, ep_metadata


class Options:
    """Those of a session, which only a plugin's provider is added to."""

    def add_provider_for_devices(self, devices: list[Device], options: dict[str, str]) -> None:
        self.devices, self.options = devices, options


@pytest.fixture
def openvino_plugin(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """An onnxruntime that loads OpenVINO's plugin, and the devices that it then has."""
    devices = [Device("CPUExecutionProvider")]
    module = ModuleType("onnxruntime_ep_openvino")
    module.get_library_path = lambda: "library.so"  # type: ignore[attr-defined]
    module.__spec__ = ModuleSpec(module.__name__, None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "register_execution_provider_library", lambda name, path: None)
    monkeypatch.setattr(ort, "get_ep_devices", lambda: devices)
    return devices


def test_a_plugin_beside_an_ordinary_runtime_is_a_provider_at_a_pinned_precision(openvino_plugin: list[Device]) -> None:
    openvino = PROVIDERS["openvino"]
    assert openvino.plugin is not None
    require_available(openvino)
    gpu, cpu = (Device(openvino.ep, ov_device=name, version="1") for name in ("GPU", "CPU"))
    openvino_plugin += [gpu, cpu]
    options = Options()
    add_plugin(options, openvino.ep, openvino.plugin, {}, threads=3)
    assert options.devices == [cpu]
    settings = json.loads(options.options["load_config"])["CPU"]
    assert settings == {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "3", "NUM_STREAMS": "1"}


def test_a_plugin_without_a_device_is_refused_with_what_it_takes(openvino_plugin: list[Device], model: Path) -> None:
    with pytest.raises(UsageError, match="onnxruntime_ep_openvino finds no device on this machine") as caught:
        compare([model], providers=["openvino"], **QUICK)
    assert "processors of Intel" in caught.value.hint


def test_compiled_engines_lie_in_a_folder_of_the_run() -> None:
    options = PROVIDERS["tensorrt"].with_cache(Path("here")).options
    assert options["trt_engine_cache_enable"] == "1" and options["trt_engine_cache_path"] == "here"
    assert PROVIDERS["cuda"].with_cache(Path("here")) is PROVIDERS["cuda"]
