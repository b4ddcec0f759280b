"""Divergence: nothing between a model and itself, otherwise what numpy says."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.observe import divergence as module
from prunegraph.observe.divergence import divergence, outputs_of
from prunegraph.observe.stream import Data
from tests.graphs.builder import Builder
from tests.graphs.small import analysed_model

WIDTH, CLASSES, EXAMPLES = 5, 7, 40
DATA = {"x": np.random.default_rng(3).normal(size=(EXAMPLES, WIDTH)).astype(np.float32)}


def model(seed: int, columns: int = CLASSES, rank: int = 2) -> onnx.ModelProto:
    g = Builder("model")
    lengths = [WIDTH] if rank == 2 else [1, 1, WIDTH]
    x = g.input("x", "batch", WIDTH)
    x = x if rank == 2 else g("Reshape", x, np.array([-1, *lengths]))
    w = np.random.default_rng(seed).normal(size=(WIDTH, columns)).astype(np.float32)
    g.output(g("MatMul", x, g.const("w", w)), "batch", *lengths[:-1], columns)
    return g.model()


def logits(proto: onnx.ModelProto) -> np.ndarray:
    (weight,) = (t for t in proto.graph.initializer if t.name == "w")
    return DATA["x"].astype(np.float64) @ onnx.numpy_helper.to_array(weight)


def kl(a: np.ndarray, b: np.ndarray) -> float:
    p, q = (np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in (a, b))
    return float((p * np.log(p / q)).sum(-1).mean())


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(a, axis=-1)).mean())


CASES = {"kl": (kl, CLASSES, 2), "relative": (relative, 1, 2), "relative, an image": (relative, CLASSES, 4)}


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_compared_with_the_whole_one(name: str) -> None:
    expected, columns, rank = CASES[name]
    whole, other = model(1, columns, rank), model(2, columns, rank)
    case = analysed_model(whole)
    outputs = outputs_of(case.normalized, case.analysis, Data(DATA).inputs(case.model))
    assert [reference.kind for reference in outputs.references] == [name.partition(",")[0]]
    assert divergence(case.normalized, outputs) == pytest.approx(0, abs=1e-6)
    assert divergence(ir.from_proto(other), outputs) == pytest.approx(expected(logits(whole), logits(other)), rel=1e-4)


def test_many_rows_are_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 12)
    case = analysed_model(model(1))
    outputs = outputs_of(case.normalized, case.analysis, Data(DATA, batch_size=16).inputs(case.model))
    assert sum(len(whole) for whole in outputs.references[0].whole) == 12
    assert divergence(case.normalized, outputs) == pytest.approx(0, abs=1e-6)
    assert divergence(ir.from_proto(model(2)), outputs) > 0.01


def test_outputs_that_are_no_floats_are_left_out() -> None:
    g = Builder("two")
    x = g.input("x", "batch", WIDTH)
    g.output(g("Cast", x, to=onnx.TensorProto.INT64), "batch", WIDTH, dtype=onnx.TensorProto.INT64)
    g.output(g("MatMul", x, g.weight("w", WIDTH, CLASSES)), "batch", CLASSES)
    case = analysed_model(g.model())
    outputs = outputs_of(case.normalized, case.analysis, Data(DATA).inputs(case.model))
    assert outputs.names == [case.model.graph.outputs[1].name]
