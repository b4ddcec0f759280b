"""Kinds follow from roles: adapters, state space blocks, low ranks and attention, however they are written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from prunegraph import Amount, prune_graph
from tests.graphs.builder import Builder, conv, layer_norm
from tests.graphs.rules import check_parts, in_words, normal_form

E, F, R, N = 24, 48, 4, 8


def adapted_ffn() -> onnx.ModelProto:
    """An FFN with an unmerged low-rank adapter beside each of its weights."""
    g = Builder("adapted_ffn")
    h = g("MatMul", g.input("x", "batch", "row", 5), g.weight("w_in", 5, E))

    def adapted(x: str, name: str, rows: int, columns: int) -> str:
        rank = g("MatMul", x, g.weight(f"{name}_a", rows, R))
        low = g("Mul", g("MatMul", rank, g.weight(f"{name}_b", R, columns)), 2.0)
        return str(g("Add", g("MatMul", x, g.weight(name, rows, columns)), low))

    up = g("Relu", adapted(layer_norm(g, h, "norm", E), "up", E, F))
    g.output(g("MatMul", g("Add", h, adapted(up, "down", F, E)), g.weight("w_out", E, 3)), None, None, 3)
    return g.model()


def state_space() -> onnx.ModelProto:
    """A selective state space block of inner width 32, unrolled over three steps."""
    return _state_space("state_space", summed=True)


def state_space_contracted() -> onnx.ModelProto:
    """The same, its state read out by a MatMul."""
    return _state_space("state_space_contracted", summed=False)


def _state_space(name: str, *, summed: bool) -> onnx.ModelProto:
    width, steps = 32, 3
    g = Builder(name)
    x = g.input("x", 2, steps, 16)
    u, z = g("Split", g("MatMul", layer_norm(g, x, "norm", 16), g.weight("w_in", 16, 2 * width)), n=2, axis=-1)
    u = g("Mul", u, g("Sigmoid", u))
    parts = g("MatMul", u, g.weight("w_x", width, R + 2 * N))
    step, b, c = g("Split", parts, [R, N, N], n=3, axis=-1)
    step = g("Softplus", g("Add", g("MatMul", step, g.weight("w_step", R, width)), g.weight("b_step", width)))
    step = g("Unsqueeze", step, [3])
    decay = g("Exp", g("Neg", g("Mul", step, g("Exp", g.weight("rates", width, N, scale=0.1)))))
    new = g("Mul", g("Mul", step, g("Unsqueeze", b, [2])), g("Unsqueeze", u, [3]))
    state, rows = "", []
    for t in range(steps):
        here = g("Squeeze", g("Slice", new, [t], [t + 1], [1]), [1])
        if state:
            kept = g("Squeeze", g("Slice", decay, [t], [t + 1], [1]), [1])
            here = g("Add", g("Mul", kept, state), here)
        state, read = here, g("Slice", c, [t], [t + 1], [1])
        if summed:
            rows.append(g("Unsqueeze", g("ReduceSum", g("Mul", state, read), [2], keepdims=0), [1]))
        else:
            rows.append(g("Transpose", g("MatMul", state, g("Transpose", read, perm=[0, 2, 1])), perm=[0, 2, 1]))
    y = g("Add", g("Concat", *rows, axis=1), g("Mul", u, g.weight("skip", width)))
    y = g("MatMul", g("Mul", y, g("Mul", z, g("Sigmoid", z))), g.weight("w_out", width, 16))
    g.output(g("MatMul", g("Add", x, y), g.weight("head", 16, 5)), 2, steps, 5)
    return g.model()


def state_space_of_heads() -> onnx.ModelProto:
    """A state space block whose heads decay each by one number, step by step: what is new is made in every step."""
    heads, size, steps = 4, 6, 4
    g, width = Builder("state_space_of_heads"), heads * size
    x = g.input("x", 2, steps, 16)
    parts = g("MatMul", layer_norm(g, x, "norm", 16), g.weight("w_in", 16, 2 * width + 2 * N + heads))
    z, u, b, c, step = g("Split", parts, [width, width, N, N, heads], n=5, axis=-1)
    step, gate = g("Softplus", step), g("Mul", z, g("Sigmoid", z))
    u = g("Reshape", u, [0, 0, heads, size])
    decay = g("Exp", g("Mul", step, g("Neg", g("Exp", g.weight("rates", heads, scale=0.1)))))
    state, rows = "", []
    for t in range(steps):
        now = {"u": u, "b": b, "c": c, "step": step, "decay": decay}
        now = {name: g("Gather", value, np.array(t), axis=1) for name, value in now.items()}
        new = g("Mul", g("Unsqueeze", now["step"], [2]), now["u"])
        new = g("Mul", g("Unsqueeze", new, [3]), g("Unsqueeze", now["b"], [1, 2]))
        state = g("Add", g("Mul", g("Unsqueeze", now["decay"], [2, 3]), state), new) if state else new
        rows.append(
            g("Unsqueeze", g("ReduceSum", g("Mul", state, g("Unsqueeze", now["c"], [1, 2])), [3], keepdims=0), [1])
        )
    y = g("Mul", g("Reshape", g("Concat", *rows, axis=1), [0, 0, width]), gate)
    g.output(
        g("MatMul", g("Add", x, g("MatMul", y, g.weight("w_out", width, 16))), g.weight("head", 16, 5)), 2, steps, 5
    )
    return g.model()


def global_context() -> onnx.ModelProto:
    """Channels summed over space with weights that a convolution makes of them, and scaled by what comes of that."""
    g, n = Builder("global_context"), 16
    x = g("Relu", conv(g, g.input("x", "batch", 3, 8, 8), "stem", 3, n))
    weights = g("Softmax", g("Reshape", conv(g, x, "attend", n, 1, k=1), [0, 64, 1]), axis=1)
    context = g("Unsqueeze", g("MatMul", g("Reshape", x, [0, n, 64]), weights), [3])
    gate = g("Sigmoid", conv(g, g("Relu", conv(g, context, "down", n, 6, k=1)), "up", 6, n, k=1))
    g.output(conv(g, g("Mul", x, gate), "out", n, 4), "batch", 4, 8, 8)
    return g.model()


def deformable() -> onnx.ModelProto:
    """Heads that read an image at three places each, weighed by a softmax and summed without a MatMul."""
    g = Builder("deformable")
    return _deformable(g, g.input("x", 2, 5, 10))


def deformable_queries() -> onnx.ModelProto:
    """The same with queries that are learnt, so that places and weights follow from constants alone."""
    g = Builder("deformable_queries")
    return _deformable(g, g.weight("queries", 2, 5, 10))


def _deformable(g: Builder, x: str) -> onnx.ModelProto:
    heads, size, places, queries = 4, 6, 3, 5
    image = g.input("image", 2, 64, 10)
    values = g("Reshape", g("MatMul", image, g.weight("w_v", 10, heads * size)), [0, 64, heads, size])
    values = g("Reshape", g("Transpose", values, perm=[0, 2, 3, 1]), [-1, size, 8, 8])
    grid = g("Tanh", g("MatMul", x, g.weight("w_places", 10, heads * places * 2)))
    grid = g("Transpose", g("Reshape", grid, [0, queries, heads, places, 2]), perm=[0, 2, 1, 3, 4])
    read = g("GridSample", values, g("Reshape", grid, [-1, queries, places, 2]), mode="bilinear")
    scores = g("Reshape", g("MatMul", x, g.weight("w_scores", 10, heads * places)), [0, queries, heads, places])
    weights = g("Transpose", g("Softmax", scores, axis=-1), perm=[0, 2, 1, 3])
    mixed = g("ReduceSum", g("Mul", read, g("Reshape", weights, [-1, 1, queries, places])), [-1], keepdims=0)
    merged = g("Transpose", g("Reshape", mixed, [-1, heads * size, queries]), perm=[0, 2, 1])
    g.output(g("MatMul", merged, g.weight("w_o", heads * size, 7)), 2, queries, 7)
    return g.model()


def split_attention() -> onnx.ModelProto:
    """Two branches weighed against each other, channel by channel: no channel is a head."""
    g, n = Builder("split_attention"), 12
    x = g.input("x", "batch", 3, 8, 8)
    branches = g("Concat", *(g("Unsqueeze", g("Relu", conv(g, x, f"b{k}", 3, n)), [1]) for k in range(2)), axis=1)
    pooled = g("GlobalAveragePool", g("ReduceSum", branches, [1], keepdims=0))
    scores = g("Reshape", conv(g, pooled, "gate", n, 2 * n, k=1), [0, 2, n, 1, 1])
    mixed = g("ReduceSum", g("Mul", branches, g("Softmax", scores, axis=1)), [1], keepdims=0)
    g.output(conv(g, mixed, "out", n, 4), "batch", 4, 8, 8)
    return g.model()


def graph_convolution() -> onnx.ModelProto:
    """Neighbours are summed by an adjacency that is given: nothing attends."""
    g = Builder("graph_convolution")
    a, x = g.input("a", "nodes", "nodes"), g.input("x", "nodes", 10)
    h = g("Relu", g("MatMul", a, g("MatMul", x, g.weight("w_in", 10, 24))))
    g.output(g("MatMul", a, g("MatMul", h, g.weight("w_out", 24, 5))), "nodes", 5)
    return g.model()


@pytest.mark.parametrize(
    ("make", "groups"),
    [
        (adapted_ffn, "hidden 24~, rank 4, ffn 48, rank 4"),
        (state_space, "inner 32, rank 4, state 8"),
        (state_space_contracted, "inner 32, rank 4, state 8"),
        (state_space_of_heads, "inner 4, inner 6/4, state 8"),
        (global_context, "channel 16, channel 6"),
        (deformable, "head 4, v_dim 6/4"),
        (deformable_queries, "head 4, v_dim 6/4"),
        (split_attention, "channel 12"),
        (graph_convolution, "ffn 24"),
    ],
)
def test_kinds(make, groups: str) -> None:  # type: ignore[no-untyped-def]
    model, normal, analysis = normal_form(make)
    assert in_words(analysis) == groups
    check_parts(model, normal, analysis)


@pytest.mark.parametrize("make", [adapted_ffn, state_space, state_space_contracted, state_space_of_heads])
def test_a_plain_ratio_leaves_ranks_and_states_alone(make) -> None:  # type: ignore[no-untyped-def]
    """No weight loses more than 60 % of its numbers by a plain half."""
    result = prune_graph(make(), Amount(0.5), verify=False)
    whole = {tensor.name: tensor.dims for tensor in make().graph.initializer}
    assert {group.kind for group in result.report.groups} <= {"ffn", "inner"}
    for tensor in result.model.graph.initializer:
        if tensor.name in whole and len(tensor.dims) == 2:
            before, after = (int(a) * int(b) for a, b in (whole[tensor.name], tensor.dims))
            assert after >= 0.4 * before, tensor.name
