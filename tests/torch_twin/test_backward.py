"""Gradients for scorers: those of the loss that the objective states, by the names of the model's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from prunegraph.errors import PruneGraphError
from prunegraph.observe.gradients import Objective
from prunegraph.observe.stream import Inputs, prepare
from prunegraph.observe.text import Batch
from tests.graphs.builder import Builder

torch = pytest.importorskip("torch")

from prunegraph.torch_twin.backward import backward  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Seen:
    """Keeps all it is given."""

    key = "seen"
    samples = None

    def __init__(self, activations: list[str], weights: list[str]) -> None:
        self._activations, self._weights = activations, weights
        self.batches: list[dict[str, tuple[np.ndarray, np.ndarray]]] = []

    def activations(self) -> list[str]:
        return self._activations

    def weights(self) -> list[str]:
        return self._weights

    def update(self, batch: Batch, gradients: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self.batches.append({name: (value.copy(), gradient.copy()) for name, (value, gradient) in gradients.items()})

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        raise AssertionError


def classifier() -> ir.Model:
    """`relu(x · w) · v`, three classes; every second neuron, by a list of integers, counts alone."""
    g = Builder("classifier")
    x = g.input("x", "batch", 6)
    h = g("Identity", g("Relu", g("MatMul", x, g.weight("w", 6, 8))))
    h = g("Gather", h, g.const("every_second", np.arange(0, 8, 2)), axis=1)
    g.output(g("MatMul", h, g.weight("v", 4, 3)), "batch", 3)
    return ir.from_proto(g.model())


def data(model: ir.Model, count: int, batch_size: int) -> tuple[Inputs, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(count, 6)).astype(np.float32), rng.integers(0, 3, count)
    return prepare(model, {"x": x, "label": labels}, label="label", batch_size=batch_size), x, labels


@pytest.mark.parametrize("labelled", [True, False])
def test_values_and_gradients(labelled: bool) -> None:
    """Written out by hand: softmax minus one-hot, back through the layers, summed over a batch."""
    model = classifier()
    inputs, x, labels = data(model, 7, 4)
    statistic = Seen(["relu1", "identity1", "x", "matmul2"], ["w", "v", "every_second"])
    counts: list[int] = []
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    backward(model, inputs, [statistic, Seen([], ["v"])], Objective("matmul2", labelled), counts.append)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert counts == [4, 7] and len(statistic.batches) == 2
    w, v = (model.graph.initializers[name].const_value.numpy() for name in "wv")
    for batch, rows in zip(statistic.batches, (slice(0, 4), slice(4, 7)), strict=True):
        h = np.maximum(x[rows] @ w, 0)
        logits = h[:, ::2] @ v
        classes = labels[rows] if labelled else logits.argmax(1)
        back = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[classes]
        to_h = np.zeros_like(h)
        to_h[:, ::2] = back @ v.T
        expected = {
            "matmul2": (logits, back),
            "identity1": (h, to_h),
            "relu1": (h, to_h),
            "x": (x[rows], (to_h * (h > 0)) @ w.T),
            "v": (v, h[:, ::2].T @ back),
            "w": (w, x[rows].T @ (to_h * (h > 0))),
            "every_second": (np.arange(0, 8, 2), np.zeros(4)),
        }
        assert batch.keys() == expected.keys()
        for name, pair in expected.items():
            for actual, right in zip(batch[name], pair, strict=True):
                np.testing.assert_allclose(actual, right, rtol=0, atol=1e-5, err_msg=name)


def test_without_a_gradient_it_is_refused() -> None:
    g = Builder("integers")
    x = g.input("x", "batch", 6, dtype=TensorProto.INT64)
    g.output(g("Cast", x, to=TensorProto.FLOAT), "batch", 6)
    model = ir.from_proto(g.model())
    inputs = prepare(model, {"x": np.ones((4, 6), np.int64)})
    with pytest.raises(PruneGraphError, match="no weight"):
        backward(model, inputs, [], Objective("cast1", False))


def test_an_unknown_value_is_named() -> None:
    model = classifier()
    inputs, *_ = data(model, 4, 4)
    with pytest.raises(PruneGraphError, match="no value 'missing'"):
        backward(model, inputs, [Seen(["missing"], [])], Objective("matmul2", False))
