"""What stands side by side, or in one layer of two directions, and is read apart is a choice of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import prunegraph as pg
from prunegraph.passes.normalize import normalize
from tests.graphs.builder import Builder, linear
from tests.graphs.rules import check_parts, in_words, normal_form
from tests.graphs.run import outputs

X, U = 7, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _layer(
    g: Builder, op: str, x: str, inputs: int, name: str, *, states: bool = False, **settings: object
) -> list[str]:
    """All outputs of one layer of two directions, its first states zeros of a computed shape if asked."""
    gates = GATES[op]
    operands: list[str | None] = [
        x,
        g.weight(f"{name}_w", 2, gates * U, inputs),
        g.weight(f"{name}_r", 2, gates * U, U),
    ]
    operands.append(g.weight(f"{name}_b", 2, 2 * gates * U, scale=0.5))
    if states:
        batch = g("Slice", g("Shape", x), [1], [2])
        operands += [None, g("ConstantOfShape", g("Concat", [2], batch, [U], axis=0))]
    n = 3 if op == "LSTM" else 2
    return list(g(op, *operands, n=n, hidden_size=U, direction="bidirectional", **settings))


def _merged(g: Builder, y: str) -> str:
    """Both directions of a sequence side by side."""
    return str(g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), [0, 0, 2 * U]))


def _start(name: str) -> tuple[Builder, str]:
    g = Builder(name)
    return g, g("Transpose", g.input("x", "B", "T", X), perm=[1, 0, 2])


def last_states(op: str = "LSTM") -> onnx.ModelProto:
    """The last state of either direction, as a classifier reads them; the sequence is read whole beside it."""
    g, x = _start(f"last_states_{op}")
    y, last, *_ = _layer(g, op, x, X, "first", states=True)
    forward, backward = g("Gather", last, np.array(-2), axis=0), g("Gather", last, np.array(1), axis=0)
    read = g("Concat", forward, backward, g("ReduceMean", _merged(g, y), axes=[0], keepdims=0), axis=1)
    g.output(linear(g, read, "out", 4 * U, 5), "B", 5)
    return g.model()


def states_of_layers() -> onnx.ModelProto:
    """The states of two layers stand side by side, and those of the last layer are taken."""
    g, x = _start("states_of_layers")
    y, first, *_ = _layer(g, "GRU", x, X, "first", linear_before_reset=1)
    _, second, *_ = _layer(g, "GRU", _merged(g, y), 2 * U, "second", linear_before_reset=1)
    states = g("Concat", first, second, axis=0)
    ends = (g("Gather", states, np.array(3), axis=0), g("Squeeze", g("Slice", states, [2], [3], [0]), [0]))
    g.output(linear(g, g("Concat", *ends, axis=1), "out", 2 * U, 5), "B", 5)
    return g.model()


def split_directions() -> onnx.ModelProto:
    """As Keras adds up both directions: a Split along them, then a sum, which makes their units one choice again."""
    g, x = _start("split_directions")
    y = _layer(g, "RNN", x, X, "first", activations=["Tanh", "Relu"])[0]
    forward, backward = g("Split", y, n=2, axis=1)
    g.output(linear(g, g("Squeeze", g("Add", forward, backward), [1]), "out", U, 5), "T", "B", 5)
    return g.model()


def side_by_side() -> onnx.ModelProto:
    """Nothing reads one direction: one layer, units chosen direction by direction."""
    g, x = _start("side_by_side")
    g.output(linear(g, _merged(g, _layer(g, "LSTM", x, X, "first")[0]), "out", 2 * U, 5), "T", "B", 5)
    return g.model()


def zero_states(fill: float = 0.0) -> onnx.ModelProto:
    """The first states of two layers, cut out of one block of zeros as torch does; or of something else."""
    g, x = _start(f"zero_states_{fill}")
    batch = g("Slice", g("Shape", x), [1], [2])
    tensor = onnx.numpy_helper.from_array(np.array([fill], np.float32))
    states = g("ConstantOfShape", g("Concat", [4], batch, [U], axis=0), value=tensor)
    for k, inputs in enumerate((X, 2 * U)):
        weights = [g.weight(f"w{k}", 2, 3 * U, inputs), g.weight(f"r{k}", 2, 3 * U, U), None, None]
        first = g("Slice", states, [2 * k], [2 * k + 2], [0])
        x = _merged(g, g("GRU", x, *weights, first, n=2, hidden_size=U, direction="bidirectional")[0])
    g.output(linear(g, x, "out", 2 * U, 5), "T", "B", 5)
    return g.model()


def flattened_stack() -> onnx.ModelProto:
    """Heads that are layers of their own, stacked, moved and flattened: each has its own width."""
    g, x = _start("flattened_stack")
    heads = [g("Unsqueeze", g("Relu", linear(g, x, f"head{k}", X, U)), [1]) for k in range(3)]
    stack = g("Transpose", g("Concat", *heads, axis=1), perm=[0, 2, 1, 3])
    g.output(linear(g, g("Reshape", stack, [0, 0, 3 * U]), "out", 3 * U, 5), "T", "B", 5)
    return g.model()


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    **{op: ((lambda op=op: last_states(op)), f"ffn {U}, ffn {U}") for op in GATES},
    "layers": (states_of_layers, f"ffn {U}/2, ffn {U}, ffn {U}"),
    "a sum": (split_directions, f"hidden {U}"),
    "side by side": (side_by_side, f"ffn {U}/2"),
    "states of zeros": (zero_states, f"ffn {U}/2, ffn {U}/2"),
    "other first states": (lambda: zero_states(0.3), f"ffn {U}, ffn {U}"),
    "a stack": (flattened_stack, f"ffn {U}, ffn {U}, ffn {U}"),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_that_are_read_apart_are_chosen_apart(case: str) -> None:
    make, groups = CASES[case]
    model, normal, analysis = normal_form(make)
    assert in_words(analysis) == groups
    check_parts(model, normal, analysis)


def test_directions_may_keep_other_numbers_of_units() -> None:
    proto = last_states()
    result = pg.prune_graph(proto, {"ffn": [0.5, 0.2]})
    layers = [node for node in result.model.graph.node if node.op_type == "LSTM"]
    sizes = [a.i for node in layers for a in node.attribute if a.name == "hidden_size"]
    assert sizes == [3, 5]
    whole = normalize(ir.from_proto(proto)).model
    x = {"x": np.random.default_rng(0).normal(size=(3, 5, X)).astype(np.float32)}
    np.testing.assert_allclose(outputs(ir.to_proto(whole), x)[0], outputs(proto, x)[0], rtol=1e-5, atol=1e-6)
