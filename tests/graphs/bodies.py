"""Loops and Scans whose bodies hold weights, as tf2onnx writes recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.graphs.branches import Branch
from tests.graphs.builder import Builder, linear

X, H = 7, 12
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

YES = np.array(True)


class Body(Branch):
    """Writes the body of a Loop or Scan."""

    def counted(self) -> Body:
        """The number of the trip and the condition, which every body of a Loop is given."""
        self.input(f"{self.prefix}_i", dtype=INT)
        self.input(f"{self.prefix}_more", dtype=BOOL)
        return self

    def graph(self, *outputs: str, condition: str | None = None) -> onnx.GraphProto:
        """The body; `condition` is what a Loop hands on first."""
        if condition is not None:
            self.outputs.append(helper.make_tensor_value_info(condition, BOOL, []))
        return super().graph(*outputs)


def _time_first(name: str) -> tuple[Builder, str]:
    g = Builder(name)
    g.input("x", "B", "T", X)
    return g, g("Transpose", "x", perm=[1, 0, 2])


def _trips(g: Builder) -> str:
    return str(g("Gather", g("Shape", "x"), np.array(1)))


def _zeros(g: Builder, width: int) -> str:
    batch = g("Slice", g("Shape", "x"), [0], [1])
    return str(g("ConstantOfShape", g("Concat", batch, [width], axis=0)))


def _finish(g: Builder, stacked: str, width: int = H) -> onnx.ModelProto:
    """What every trip made, batch first again, read by a weight."""
    g.output(linear(g, g("Transpose", stacked, perm=[1, 0, 2]), "out", width, 5), "B", "T", 5)
    return g.model()


def lstm_cell(b: Builder, x: str, h: str, c: str, name: str, inputs: int = X, width: int = H) -> tuple[str, str]:
    """The cell in primitive ops, all gates in one product with input and state side by side."""
    z = linear(b, b("Concat", x, h, axis=-1), name, inputs + width, 4 * width)
    i, g, f, o = b("Split", z, n=4, axis=-1)
    kept = b("Mul", b("Sigmoid", b("Add", f, 1.0)), c)
    state = b("Add", kept, b("Mul", b("Sigmoid", i), b("Tanh", g)))
    return b("Mul", b("Sigmoid", o), b("Tanh", state)), state


def lstm_loop() -> onnx.ModelProto:
    """A Loop that looks its input up by the number of the trip, and carries two states."""
    g, xs = _time_first("lstm_loop")
    zeros = _zeros(g, H)
    b = Body(g, "cell").counted()
    h, c = b.input("h", "B", H), b.input("c", "B", H)
    new_h, new_c = lstm_cell(b, b("Gather", xs, "cell_i", axis=0), h, c, "lstm")
    body = b.graph(new_h, new_c, b("Identity", new_h), condition=b("Identity", "cell_more"))
    return _finish(g, g("Loop", _trips(g), YES, zeros, zeros, n=3, body=body)[2])


def two_lstm_loops() -> onnx.ModelProto:
    """Two layers, each a Loop; their states have the same names."""
    g, xs = _time_first("two_lstm_loops")
    zeros, trips = _zeros(g, H), _trips(g)
    for k, inputs in enumerate((X, H)):
        b = Body(g, f"cell{k}").counted()
        h, c = b.input("h", "B", H), b.input("c", "B", H)
        new_h, new_c = lstm_cell(b, b("Gather", xs, f"cell{k}_i", axis=0), h, c, f"lstm{k}", inputs)
        body = b.graph(new_h, new_c, b("Identity", new_h), condition=f"cell{k}_more")
        xs = g("Loop", trips, YES, zeros, zeros, n=3, body=body)[2]
    return _finish(g, xs)


def gru_scan(reverse: bool = False) -> onnx.ModelProto:
    """A Scan over the time of a batch-first input, with weights of its own."""
    g = Builder("gru_scan")
    g.input("x", "B", "T", X)
    b = Body(g, "gru", own=True)
    h, x = b.input("h", "B", H), b.input("x_t", "B", X)
    update, reset = b("Split", b("Sigmoid", linear(b, b("Concat", x, h, axis=1), "gates", X + H, 2 * H)), n=2, axis=1)
    new = b("Tanh", linear(b, b("Concat", x, b("Mul", reset, h), axis=1), "new", X + H, H))
    h = b("Add", b("Mul", update, h), b("Mul", b("Sub", 1.0, update), new))
    settings = {"scan_input_axes": [1], "scan_output_axes": [1]}
    if reverse:
        settings |= {"scan_input_directions": [1], "scan_output_directions": [1]}
    _, stacked = g("Scan", _zeros(g, H), "x", n=2, body=b.graph(h, b("Identity", h)), num_scan_inputs=1, **settings)
    g.output(linear(g, stacked, "out", H, 5), "B", "T", 5)
    return g.model()


def reversed_scan() -> onnx.ModelProto:
    """The same from the last step to the first."""
    return gru_scan(reverse=True)


def captured_weights() -> onnx.ModelProto:
    """A fixed number of trips through a layer that the graph has, with an activation from outside added each time."""
    g = Builder("captured_weights")
    g.input("x", "B", X)
    h = g("Relu", linear(g, "x", "in", X, H))
    outside = g("Tanh", linear(g, "x", "side", X, H))
    b = Body(g, "again").counted()
    state = b.input("state", "B", H)
    inner = b("Relu", linear(b, state, "up", H, 20))
    state = b("Tanh", b("Add", linear(b, inner, "down", 20, H), outside))
    y = g("Loop", np.array(3), YES, h, body=b.graph(state, condition="again_more"))
    g.output(linear(g, y, "out", H, 5), "B", 5)
    return g.model()


def until_it_is_small() -> onnx.ModelProto:
    """A Loop that ends when its state says so."""
    g = Builder("until_it_is_small")
    g.input("x", "B", X)
    h = g("Relu", linear(g, "x", "in", X, H))
    b = Body(g, "halve").counted()
    state = b.input("state", "B", H)
    inner = b("Tanh", linear(b, state, "up", H, 10))
    state = b("Add", b("Mul", state, 0.3), b("Mul", linear(b, inner, "down", 10, H), 0.3))
    read = linear(b, state, "read", H, 1)
    more = b("Greater", b("ReduceMax", b("Abs", read), keepdims=0), 0.01)
    y = g("Loop", np.array(6), YES, h, body=b.graph(state, condition=more))
    g.output(linear(g, y, "out", H, 5), "B", 5)
    return g.model()


def lengths_inside() -> onnx.ModelProto:
    """As a scripted torch module is exported: gates are sliced at positions that the body computes from a shape."""
    g, xs = _time_first("lengths_inside")
    zeros = _zeros(g, H)
    b = Body(g, "cell").counted()
    h = b.input("h", "B", H)
    x = b("Gather", xs, "cell_i", axis=0)
    z = linear(b, b("Concat", x, h, axis=1), "gates", X + H, 2 * H)
    half = b("Div", b("Gather", b("Shape", z), [1]), [2])
    update, new = (b("Slice", z, b("Mul", half, [k]), b("Mul", half, [k + 1]), [1]) for k in (0, 1))
    scale = b("Sqrt", b("Cast", half, to=FLOAT))
    h = b("Add", b("Mul", b("Sigmoid", update), h), b("Tanh", b("Mul", new, scale)))
    body = b.graph(h, b("Identity", h), condition="cell_more")
    return _finish(g, g("Loop", _trips(g), YES, zeros, n=2, body=body)[1])


def carried_weights() -> onnx.ModelProto:
    """As tf2onnx writes a GRU that it does not know: weights are states that every trip hands on as they are."""
    g, xs = _time_first("carried_weights")
    b = Body(g, "cell").counted()
    h = b.input("h", "B", H)
    of_input, of_state, bias = b.input("kernel", X, 3 * H), b.input("recurrent", H, 3 * H), b.input("bias", 3 * H)
    left = b("Split", b("Add", b("MatMul", b("Gather", xs, "cell_i", axis=0), of_input), bias), n=3, axis=1)
    right = b("Split", b("MatMul", h, of_state), n=3, axis=1)
    update, reset = (b("Sigmoid", b("Add", left[k], right[k])) for k in (0, 1))
    new = b("Tanh", b("Add", left[2], b("Mul", reset, right[2])))
    h = b("Add", b("Mul", update, h), b("Mul", b("Sub", 1.0, update), new))
    handed = (b("Identity", of_input), b("Identity", of_state), b("Identity", bias))
    body = b.graph(h, *handed, b("Identity", h), condition=b("Identity", "cell_more"))
    weights = (g.weight("w", X, 3 * H), g.weight("r", H, 3 * H), g.weight("b", 3 * H))
    return _finish(g, g("Loop", _trips(g), YES, _zeros(g, H), *weights, n=5, body=body)[4])


BODIES: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(lstm_loop, two_lstm_loops, gru_scan, reversed_scan, captured_weights, until_it_is_small, lengths_inside),
    carried_weights,
)


def growing() -> onnx.ModelProto:
    """A state that is one slot longer after every trip, and how long it is counts; the layer beside it is free."""
    g = Builder("growing")
    g.input("x", "B", X)
    h = g("Relu", linear(g, "x", "in", X, H))
    b = Body(g, "grow").counted()
    state, kept = b.input("state", "B", None), b.input("kept", "B", H)
    inner = linear(b, b("Relu", linear(b, kept, "up", H, 16)), "down", 16, H)
    longer = b("Concat", state, b("ReduceMean", inner, axes=[1]), axis=1)
    inner = b("Div", inner, b("Sqrt", b("Cast", b("Gather", b("Shape", state), [1]), to=FLOAT)))
    body = b.graph(longer, b("Tanh", inner), condition="grow_more")
    grown, kept = g("Loop", np.array(4), YES, h, h, n=2, body=body)
    y = g("Add", linear(g, kept, "out", H, 5), g("ReduceSum", grown, [1]))
    g.output(y, "B", 5)
    return g.model()


def body_in_a_body() -> onnx.ModelProto:
    """A Loop within a Loop, which stays what it is: what it reads is pinned by the node that reads it."""
    g = Builder("body_in_a_body")
    g.input("x", "B", X)
    h = linear(g, g("Relu", linear(g, "x", "in", X, 16)), "mid", 16, H)
    b = Body(g, "outer").counted()
    state = b.input("state", "B", H)
    inner = Body(b, "inner").counted()
    inner_state = inner.input("inner_state", "B", H)
    step = inner.graph(inner("Tanh", linear(inner, inner_state, "step", H, H)), condition="inner_more")
    y = b("Loop", np.array(2), YES, state, body=step)
    g.output(linear(g, g("Loop", np.array(2), YES, h, body=b.graph(y, condition="outer_more")), "out", H, 5), "B", 5)
    return g.model()


def random_body(seed: int) -> onnx.ModelProto:
    """A Loop or a Scan with one or two states of chance widths and a chance body that mixes them."""
    rng = np.random.default_rng(seed)
    g = Builder(f"random_body_{seed}")
    g.input("x", "B", "T", X)
    xs = g("Transpose", "x", perm=[1, 0, 2])
    widths = [int(rng.integers(3, 9)) for _ in range(int(rng.integers(1, 3)))]
    scan = bool(rng.random() < 0.4)
    own = bool(rng.random() < 0.5)
    firsts = [
        _zeros(g, width) if rng.random() < 0.5 else g("Tanh", _mean_of_x(g, f"first{k}", width))
        for k, width in enumerate(widths)
    ]
    b = Body(g, "body", own=own)
    if not scan:
        b.counted()
    states = [b.input(f"s{k}", "B", w) for k, w in enumerate(widths)]
    x = b.input("x_t", "B", X) if scan else b("Gather", xs, "body_i", axis=0)
    pool = [(x, X), *zip(states, widths, strict=True)]
    for k in range(int(rng.integers(2, 6))):
        pool.append(_step(b, rng, pool, f"w{k}"))
    new = []
    for k, width in enumerate(widths):
        same = [value for value, w in pool[1:] if w == width]
        value = same[int(rng.integers(len(same)))] if rng.random() < 0.3 else None
        value = value or b("Tanh", linear(b, pool[-1 - k % 2][0], f"to{k}", pool[-1 - k % 2][1], width))
        new.append(b("Add", value, b("Mul", states[k], 0.5)) if rng.random() < 0.5 else value)
    made, width = pool[int(rng.integers(1, len(pool)))]
    outputs = [b("Identity", value) for value in (*new, made)]
    if scan:
        settings = {"num_scan_inputs": 1, "scan_input_directions": [int(rng.integers(2))]}
        results = g("Scan", *firsts, xs, n=len(outputs), body=b.graph(*outputs), **settings)
    else:
        body = b.graph(*outputs, condition="body_more")
        results = g("Loop", _trips(g), YES, *firsts, n=len(outputs), body=body)
    y = linear(g, g("Transpose", results[-1], perm=[1, 0, 2]), "out", width, 5)
    last = linear(g, results[0], "last", widths[0], 5)
    g.output(g("Add", y, g("Unsqueeze", last, [1])), "B", "T", 5)
    return g.model()


def _mean_of_x(g: Builder, name: str, width: int) -> str:
    return linear(g, g("ReduceMean", "x", axes=[1], keepdims=0), name, X, width)


def _step(b: Body, rng: np.random.Generator, pool: Sequence[tuple[str, int]], name: str) -> tuple[str, int]:
    """One more value of a body: a layer, values side by side, or a gate."""
    value, width = pool[int(rng.integers(len(pool)))]
    match int(rng.integers(4)):
        case 0:
            other, more = pool[int(rng.integers(len(pool)))]
            return b("Concat", value, other, axis=1), width + more
        case 1:
            gate = b("Sigmoid", linear(b, value, name, width, width))
            return b("Mul", gate, value), width
        case 2 if width > 3:
            first = int(rng.integers(1, width - 1))
            one, two = b("Split", value, [first, width - first], n=2, axis=1)
            return b("Concat", two, b("Relu", one), axis=1), width
        case _:
            wide = int(rng.integers(4, 12))
            return b("Relu", linear(b, value, name, width, wide)), wide
