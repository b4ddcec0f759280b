"""Quantized models: close to the float model, with the same doors, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.quantization.quantize import relative_error
from tests.graphs.builder import Builder
from tests.graphs.cli import classifier
from tests.graphs.run import outputs

X = np.random.default_rng(0).normal(size=(8, 6, 5)).astype(np.float32)


def model() -> onnx.ModelProto:
    proto = classifier()
    proto.metadata_props.add(key="labels", value="a,b,c")
    proto.producer_name, proto.doc_string, proto.graph.doc_string = "exporter", "a model", "a graph"
    return proto


def mlp(width: int) -> onnx.ModelProto:
    """Two linear layers with neurons between."""
    g = Builder("mlp")
    h = g("Relu", g("MatMul", g.input("x", "batch", 6), g.weight("up", 6, width)))
    g.output(g("MatMul", h, g.weight("down", width, 3)), "batch", 3)
    return g.model()


@pytest.mark.parametrize(
    ("options", "data", "op", "error", "share"),
    [
        (pg.Quantize(), None, "MatMulInteger", 0.05, 0.6),
        (pg.Quantize("dynamic", per_channel=False), {"x": X}, "MatMulInteger", 0.05, 0.6),
        (pg.Quantize("static"), {"x": X}, "QuantizeLinear", 0.05, 0.6),
        (pg.Quantize("matmul4"), None, "MatMulNBits", 0.15, 0.9),
        (pg.Quantize("matmul4", fp16=True), None, "MatMulNBits", 0.15, 0.6),
        (pg.Quantize(fp16=True), {"x": X}, "Cast", 0.002, 0.6),
    ],
    ids=lambda value: "+".join(value.chosen) if isinstance(value, pg.Quantize) else "",
)
def test_every_method_gives_a_smaller_model_that_is_close_and_looks_the_same(
    options: pg.Quantize, data: Any, op: str, error: float, share: float
) -> None:
    proto = model()
    before = proto.SerializeToString()
    result = pg.quantize(proto, options, data=data)
    assert proto.SerializeToString() == before
    small = result.model
    assert isinstance(small, onnx.ModelProto)
    onnx.checker.check_model(small)
    x = np.random.default_rng(5).normal(size=(3, 9, 5)).astype(np.float32)
    distance = relative_error(*(outputs(each, {"x": x})[0] for each in (proto, small)))
    assert 0 < distance < error
    assert 0 < result.report.worst < error
    assert result.report.ops[op] > 0
    assert result.report.bytes[1] < share * result.report.bytes[0]
    assert result.report.on == ("data" if data else "random inputs")
    assert (small.graph.input, small.graph.output) == (proto.graph.input, proto.graph.output)
    for name in ("metadata_props", "producer_name", "doc_string"):
        assert getattr(small, name) == getattr(proto, name)
    assert (small.graph.name, small.graph.doc_string) == (proto.graph.name, proto.graph.doc_string)


def test_an_error_beyond_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(pg.VerificationFailed, match=r"'logits' is [\d.]+% from .* more than 0\.1%") as caught:
        pg.quantize(model(), pg.Quantize("matmul4", max_error=0.001))
    assert "max_error" in caught.value.hint


def test_float16_that_overflows_is_refused_though_the_cpu_computes_it_in_float32() -> None:
    weights = [numpy_helper.from_array(np.full((4, 4), 300, np.float32), name) for name in "ab"]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),  # integers are nobody's overflow
        helper.make_node("Mul", ["shape", "many"], ["counts"]),
        helper.make_node("Div", ["counts", "many"], ["again"]),
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Reshape", ["h", "again"], ["g"]),
        helper.make_node("MatMul", ["g", "b"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(np.array([10**7, 10**7]), "many"))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = helper.make_graph(nodes, "large", [x], [y], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(pg.VerificationFailed, match=r"'y' reaches .* float16 ends at 65,504"):
        pg.quantize(proto, pg.Quantize(fp16=True))


@pytest.mark.parametrize("method", ["dynamic", "matmul4"])
def test_a_model_without_anything_to_quantize_is_told_so(method: str) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(pg.ModelError, match=f"nothing in the model that {method} quantizes"):
        pg.quantize(proto, method)


def test_the_reason_of_a_quantizer_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime.quantization as quantization

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no range\nfor h")

    monkeypatch.setattr(quantization, "quantize_dynamic", fail)
    with pytest.raises(pg.ModelError, match="dynamic quantizer cannot do it: no range for h") as caught:
        pg.quantize(model())
    assert "static" in caught.value.hint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pg.Quantize("int3"), "'int3'"),
        (lambda: pg.Quantize("dynamic", fp16=True), "float32 models"),
        (lambda: pg.Quantize("matmul4", block_size=20), "20 numbers"),
        (lambda: pg.Quantize(max_error=-1), "largest error is -1"),
        (lambda: pg.quantize(model(), "static"), "from data"),
        (lambda: pg.prune_graph(model(), after=pg.Quantize("static")), "from data"),
        (lambda: pg.prune_graph(model(), data={"x": X}, after=[pg.Quantize(), pg.Repair()]), "follows"),
    ],
)
def test_options_that_do_not_go_together(make: Any, message: str) -> None:
    with pytest.raises(pg.UsageError, match=message) as caught:
        make()
    assert caught.value.hint


def test_pruned_repaired_and_quantized_in_one_call(tmp_path: Path) -> None:
    result = pg.prune_graph(mlp(64), 0.5, data={"x": X.reshape(-1, 30)[:, :6]}, after=[pg.Repair(), pg.Quantize()])
    assert result.quantized is not None and 0 < result.quantized.worst < 0.05
    assert result.report.verify is not None and result.report.verify.ok
    result.save(tmp_path / "slim.onnx")
    weights = {w.name: w for w in onnx.load(tmp_path / "slim.onnx").graph.initializer}
    assert any(w.data_type == TensorProto.INT8 and list(w.dims) == [6, 32] for w in weights.values())
    assert json.loads((tmp_path / "slim.plan.json").read_text())["quantized"] == "dynamic"
    assert result.to_dict()["quantize"]["max_rel_error"] == result.quantized.worst
    for follow in (result.verify, lambda: result.repair({"x": X}), result.quantize):
        with pytest.raises(pg.UsageError, match="the model is quantized"):
            follow()


def test_the_command_writes_the_model_and_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(model(), "slim.onnx")
    np.savez("data.npz", x=X)
    before = Path("slim.onnx").read_bytes()
    run = CliRunner().invoke(
        app, ["quantize", "slim.onnx", "-o", "int8.onnx", "--method", "static", "--data", "data.npz"]
    )
    assert (run.exit_code, Path("slim.onnx").read_bytes()) == (0, before), run.stderr
    assert "logits:" in run.stdout and "refused beyond 30.0%" in run.stdout
    assert Path("int8.onnx").stat().st_size > 0
    printed = CliRunner().invoke(app, ["quantize", "slim.onnx", "-o", "half.onnx", "--fp16", "--json"])
    assert json.loads(printed.stdout)["method"] == "float16"
    for arguments, code, message in (
        (["-o", "none.onnx", "--max-error", "1e-9"], 1, "more than 0.0%"),
        (["-o", "none.onnx", "--method", "static"], 2, "from data"),
        (["-o", "slim.onnx"], 1, "is an input file"),
    ):
        failed = CliRunner().invoke(app, ["quantize", "slim.onnx", *arguments])
        assert failed.exit_code == code and message in failed.stderr, failed.stderr
        assert not Path("none.onnx").exists() and Path("slim.onnx").read_bytes() == before


def test_a_plan_of_a_quantized_model_says_why_it_cannot_be_verified(tmp_path: Path) -> None:
    onnx.save(mlp(64), tmp_path / "model.onnx")
    pg.prune_graph(tmp_path / "model.onnx", 0.5, after=pg.Quantize()).save(tmp_path / "slim.onnx")
    run = CliRunner().invoke(app, ["verify", str(tmp_path / "model.onnx"), str(tmp_path / "slim.onnx")])
    assert run.exit_code == 1 and "quantized after the proof" in run.stderr


def test_weights_outside_of_the_file_and_models_in_it(tmp_path: Path) -> None:
    onnx.save_model(model(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    result = pg.quantize(tmp_path / "m.onnx")
    with pytest.raises(pg.OutputError, match="is an input file"):
        result.save(tmp_path / "m.onnx")
    result.save(tmp_path / "int8.onnx")
    session = ort.InferenceSession(str(tmp_path / "int8.onnx"), providers=["CPUExecutionProvider"])
    assert relative_error(outputs(model(), {"x": X})[0], session.run(None, {"x": X})[0]) < 0.05
