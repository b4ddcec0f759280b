"""The study of speed: its cases have names, its tables say what records say, and peers get the weights of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import prunegraph as pg
from benchmarks import speed, speed_peers, speed_tasks
from benchmarks.harness import Records
from benchmarks.speed_cases import all_cases, plans_case
from benchmarks.speed_peers import OURS, TITLES, TOOLS, lines_of_code, weight_beside
from benchmarks.speed_tasks import PARTS, SEARCHED, TASK_SPEEDS, TASKS, WIDTHS
from tests.graphs.builder import Builder, linear
from tests.speed.machine import machine, network
from tests.speed.test_widths import streams

__all__ = ["machine"]


def test_every_case_is_a_function_with_its_arguments() -> None:
    cases = all_cases()
    for name, (work, arguments) in cases.items():
        assert callable(work) and len(arguments) <= work.__code__.co_argcount, name
    assert {"harm:five:2", "plans:binary:0:3", "plans:fashion:1:4:3", "accuracy:binary:0:5"} <= set(cases)
    assert {"tune-peer:five:onnxsim:2", "peer:binary:1:tp-taylor", "tuned:fashion:0:4:3"} <= set(cases)
    assert list(TITLES) == list(TOOLS) and len(PARTS) == SEARCHED + 1


def test_tables_tell_differences_speeds_and_effort(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    task, two = TASKS[0], f"{TASK_SPEEDS[0]:g}"
    ratio = {"median": 2.01, "low": 2.0, "high": 2.02}
    records.keep(f"accuracy:{task}:0:0", {"right": {"dense": "1111", two: "1010"}})
    records.keep(f"accuracy:{task}:0:{WIDTHS}", {"right": {"dense": "1111", two: "1110"}})
    records.keep(plans_case(task, 0, WIDTHS, 2.0), {"plans": {two: {"ratio": ratio}}, "took": 60})
    records.keep(f"harm:{task}:0", {"seconds": 100})
    records.keep(f"tune-peer:{task}:onnxsim:{two}", {"measured": ratio, "seconds": 30})
    records.keep(f"peer:{task}:0:onnxsim", {"right": {two: "1000"}, "lines": 4})
    records.keep(f"tuned:{task}:0:{WIDTHS}:{two}", {"right": {two: "1111"}})
    records.keep(f"tune-peer:{task}:onnxsim:3", {"refused": "3 times as fast cannot be had"})
    rows = [row[:3] for row in speed.accuracies(records, task).rows]
    assert [row[0] for row in rows] == [next(iter(PARTS)), list(PARTS)[WIDTHS], TITLES["onnxsim"]]
    assert [row[1].split("[")[0] for row in rows] == ["-50.0 ", "-25.0 ", "-75.0 "]
    assert [row[2] for row in rows] == ["", "", "not reached"]
    assert rows[1][1].endswith("(2.01 to 2.01)") and rows[2][1].endswith("(2.01 to 2.01)")
    assert speed.after_tuning(records, task).rows[0][1].startswith("+0.0 [")
    assert [row[1:] for row in speed.effort(records).rows] == [["1", "160"], ["4", "30"]]
    assert not speed.accuracies(records, TASKS[1]).rows


def test_lines_of_user_code_are_counted() -> None:
    assert len(OURS.splitlines()) == 1
    assert lines_of_code("onnxsim", "binary") == 4
    assert 15 < lines_of_code("tp-taylor", "fashion") and 15 < lines_of_code("tp-magnitude", "binary")


@pytest.mark.parametrize("spelling", ["MatMul", "Gemm", "turned Gemm"])
def test_a_weight_without_its_name_is_known_by_its_bias(spelling: str) -> None:
    g = Builder(spelling)
    x = g.input("x", 3, 4)
    if spelling == "MatMul":
        y = linear(g, x, "layer", 4, 6)
    else:
        turned = spelling == "turned Gemm"
        weight = g.weight("w_layer", *((6, 4) if turned else (4, 6)))
        y = g("Gemm", x, weight, g.weight("b_layer", 6), transB=int(turned))
    g.output(y, 3, 6)
    weight = g.initializers["w_layer"]
    expected = weight if spelling == "turned Gemm" else weight.T
    np.testing.assert_array_equal(weight_beside(ir.from_proto(g.model()), "b_layer"), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
def test_a_part_is_planned_judged_and_tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    data = pg.Data({"x": x, "label": (x[:, 0] > 0).astype(np.int64)})
    onnx.save(streams(pre_norm=True, directions=12), tmp_path / "model.onnx")
    monkeypatch.setattr(speed_tasks, "BUILD", tmp_path)
    monkeypatch.setattr(speed_tasks, "task_files", lambda task, seed: (tmp_path / "model.onnx", data, data))
    monkeypatch.setattr(speed_tasks, "training", lambda task, seed: data)
    monkeypatch.setattr(speed_tasks, "timing", lambda task: {})
    monkeypatch.setattr(speed_tasks, "FROZEN", [])
    monkeypatch.setattr("prunegraph.speed.widths.SHARES", (1 / 2,))
    made = speed_tasks.plans("binary", 0, WIDTHS, (2.0,))["plans"]["2"]
    assert made["ratio"]["median"] == pytest.approx(2, rel=0.05) and made["width"] == {"hidden.0": 16}
    whole, slim = (speed_tasks.accuracy("binary", 0, WIDTHS)["right"][name] for name in ("dense", "2"))
    assert len(whole) == len(slim) == 64 and sum(a == b for a, b in zip(whole, slim, strict=True)) > 48
    assert len(speed_tasks.tuned("binary", 0, WIDTHS, 2.0)["right"]["2"]) == 64


@pytest.mark.usefixtures("machine")
def test_another_tool_is_tuned_to_the_speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    graph = pg.analyze(network())
    scores = graph.score("magnitude")

    def tool(task: str, seed: int, ratio: float) -> ir.Model:
        return graph.apply(graph.select(scores, pg.Amount(ratio, align=1)), verify=False).ir_model

    monkeypatch.setattr(speed_peers, "task_files", lambda task, seed: (tmp_path / "model.onnx", None, None))
    monkeypatch.setitem(speed_peers.TOOLS, "onnxsim", tool)
    record = speed_peers.peer_ratio("binary", "onnxsim", 2.0)
    assert record["measured"]["median"] == pytest.approx(2, rel=0.05) and record["forms"]
    monkeypatch.setitem(speed_peers.TOOLS, "onnxsim", lambda task, seed, ratio: ir.from_proto(network()))
    assert "cannot be had" in speed_peers.peer_ratio("binary", "onnxsim", 2.0)["refused"]
