"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.speed.machine import machine, weights

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

__all__ = ["machine"]  # whose time is the number of weights: what a busy one measures proves nothing

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache", "one_torch_thread")]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_text_classifier_gets_twice_as_fast(
    machine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("prunegraph.speed.widths.SHARES", (3 / 4,))  # narrower streams: tests/speed/test_widths.py
    result = load("text_classifier").main(tmp_path)
    assert 1.96 <= result.speed.met.best.ratio.median <= 2.1 and result.report.verify.ok
    assert (tmp_path / "slim.onnx").exists() and (tmp_path / "slim.plan.json").exists()
    lines = capsys.readouterr().out.splitlines()
    accuracy = [float(line.split(":")[1].split()[0]) for line in lines if line.startswith("accuracy of ")]
    assert len(accuracy) == 2 and accuracy[0] > 0.9 and accuracy[1] > accuracy[0] - 0.05


def test_a_vision_transformer_meets_a_latency(
    machine: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("vision_transformer")
    monkeypatch.setattr(example, "latency", lambda model: weights(model) / 1e5)
    result = example.main()
    assert result.report.verify.ok and 1.47 <= result.speed.met.best.ratio.median <= 1.6
    accuracy = [float(line.split(":")[1]) for line in capsys.readouterr().out.splitlines() if "accuracy" in line]
    assert accuracy[0] > 0.9 and accuracy[1] > accuracy[0] - 0.05
    assert example.meet_latency(result.ir_model, {}, milliseconds=1e6) is None


def test_a_decoder_generates_with_half_of_its_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In Python, and as a folder of ONNX Runtime GenAI: by that where it is installed."""
    example = load("decoder_with_cache")
    result = example.main(tmp_path)
    shapes = {value.name: value.shape for value in (*result.ir_model.graph.inputs, *result.ir_model.graph.outputs)}
    assert {shapes[name][1] for name in (*example.PAST, *example.PRESENT)} == {4}
    original, slim, _, folder = (line.split("|") for line in capsys.readouterr().out.splitlines())
    sizes = [int(line[0].split()[1].replace(",", "")) for line in (original, slim)]
    assert sizes[1] * 2 == sizes[0]
    assert original[1].strip() in example.TEXT * 4, "it knows its sentence by heart"
    assert slim[1].strip().startswith("the quick brown fox") and folder[1].strip().startswith("the quick brown fox")
    installed = importlib.util.find_spec("onnxruntime_genai") is not None
    assert folder[0].strip() == ("by GenAI from slim" if installed else "onnxruntime-genai is not installed")
    decoder = json.loads((tmp_path / "slim" / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    assert decoder["num_attention_heads"] == decoder["num_key_value_heads"] == 4


def test_a_scorer_of_ones_own_is_compared_over_ratios() -> None:
    results = load("own_scorer_and_sweep").main()
    sizes = [results["spread", ratio].report.params[1] for ratio in (0.25, 0.5, 0.75, 0.9)]
    assert sizes == sorted(sizes, reverse=True) and all(result.report.verify.ok for result in results.values())
    chosen = {name: results[name, 0.5].selection.keep["ffn.0"].tolist() for name in ("random", "magnitude", "spread")}
    assert chosen["spread"] not in (chosen["random"], chosen["magnitude"])


def test_the_cells_of_the_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((EXAMPLES / "explore.ipynb").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec", dont_inherit=True), names)
    assert names["by_hand"].verify().ok and (tmp_path / "slim.onnx").exists()
