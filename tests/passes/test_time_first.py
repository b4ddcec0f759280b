"""Recurrent layers that are written batch first: turned, run, pruned in both directions, and proven."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import prunegraph as pg
from tests.graphs.builder import Builder
from tests.graphs.run import outputs

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
UNITS, INPUTS = 6, 5


def batch_first(op: str, direction: str = "bidirectional", *, states: bool = False) -> onnx.ModelProto:
    directions = 2 if direction == "bidirectional" else 1
    g = Builder(f"batch_first_{op}", opset=22)
    x = g.input("x", "B", "S", INPUTS)
    rows = GATES[op] * UNITS
    weights = [g.weight("w", directions, rows, INPUTS), g.weight("r", directions, rows, UNITS)]
    weights.append(g.weight("b", directions, 2 * rows))
    begin = [None, g.input("begin", "B", directions, UNITS)] if states else []
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    y, end = g(op, x, *weights, *begin, n=2, hidden_size=UNITS, layout=1, direction=direction, **extra)
    g.output(
        g("MatMul", g("Reshape", y, [0, 0, directions * UNITS]), g.weight("o", directions * UNITS, 3)), "B", "S", 3
    )
    if states:
        g.output(end, "B", directions, UNITS)
    else:
        last = g("Reshape", end, [0, directions * UNITS])
        g.output(g("MatMul", last, g.weight("p", directions * UNITS, 2)), "B", 2)
    return g.model()


@pytest.mark.parametrize("op", GATES)
def test_each_direction_loses_its_own_units(op: str) -> None:
    result = pg.prune_graph(batch_first(op), 0.5)
    (group,) = result.report.groups
    assert (group.before, group.after) == (UNITS, UNITS // 2)
    assert result.selection.keep[group.id].shape == (2, UNITS)
    assert result.report.verify is not None and result.report.verify.ok
    assert all("layout" not in node.attributes for node in result.ir_model.graph)


def lstm(x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One direction of an LSTM by hand, `[B, S, inputs]` to `[B, S, units]` and the last state."""

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    h = c = np.zeros((len(x), UNITS))
    states = []
    for step in range(x.shape[1]):
        gates = x[:, step] @ w.T + h @ r.T + b[: 4 * UNITS] + b[4 * UNITS :]
        i, o, f, new = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states, axis=1), h


def test_what_is_turned_computes_what_the_operator_is_defined_to() -> None:
    model = batch_first("LSTM", "forward")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    x = np.random.default_rng(0).normal(size=(2, 4, INPUTS)).astype(np.float32)
    y, end = lstm(x, weights["w"][0], weights["r"][0], weights["b"][0])
    arrays = outputs(pg.analyze(model).original, {"x": x})
    np.testing.assert_allclose(arrays[0], y @ weights["o"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays[1], end @ weights["p"], rtol=1e-4, atol=1e-5)


def test_states_keep_their_place() -> None:
    graph = pg.analyze(batch_first("GRU", states=True))
    assert [list(map(str, value.shape or ())) for value in graph.original.graph.inputs][1] == ["B", "2", str(UNITS)]
    feeds = {"x": np.ones((3, 4, INPUTS), np.float32), "begin": np.ones((3, 2, UNITS), np.float32)}
    assert [array.shape for array in outputs(graph.original, feeds)] == [(3, 4, 3), (3, 2, UNITS)]


def test_a_state_for_a_batch_of_one_pins_no_unit() -> None:
    """The batch is declared dynamic, and the first state is for one example: so is the model."""
    g = Builder("batch_of_one")
    x = g("Transpose", g.input("x", "B", "S", INPUTS), perm=[1, 0, 2])
    rows = 3 * UNITS
    weights = (g.weight("w", 1, rows, INPUTS), g.weight("r", 1, rows, UNITS), g.weight("b", 1, 2 * rows))
    y, _ = g("GRU", x, *weights, None, g.weight("begin", 1, 1, UNITS), n=2, hidden_size=UNITS)
    g.output(g("MatMul", g("Squeeze", y, [1]), g.weight("o", UNITS, 3)), "S", "B", 3)
    result = pg.prune_graph(g.model(full_check=False), 0.5)
    assert [(group.before, group.after) for group in result.report.groups] == [(UNITS, UNITS // 2)]
    assert result.report.verify is not None and result.report.verify.ok
