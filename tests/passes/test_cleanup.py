"""Cleanup: a tiny graph in, a shorter one out that computes the same; what was one before Normalize is one again."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph import prune_graph
from prunegraph.passes.normalize import normalize
from prunegraph.passes.rewrite.cleanup.scales import push_scales
from prunegraph.passes.rewrite.cleanup.views import shorten_views
from prunegraph.runtime.feeds import random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
from tests.graphs.attention import (
    D,
    E,
    H,
    attend,
    finish,
    heads,
    merge,
    packed_3hd,
    packed_h3d,
    packed_h_3d,
    separate,
    stem,
)
from tests.graphs.builder import Builder, conv, linear

FAR = 2**63 - 1


def computed(model: ir.Model, batch: int, length: int) -> list[np.ndarray]:
    with open_session(model, optimize=False) as session:
        return run(session, random_feeds(input_specs(model.graph), {"B": batch, "S": length}, 0))


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def same(before: ir.Model, after: ir.Model) -> None:
    """Equal bit by bit, at sizes that no probe has used, 1 among them."""
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    for batch, length in ((1, 1), (3, 8), (5, 1)):
        for a, b in zip(computed(before, batch, length), computed(after, batch, length), strict=True):
            np.testing.assert_array_equal(a, b)


# ---- views ---------------------------------------------------------------------------------------------------------

View = Callable[[Builder, str], str]
"""Makes something of [B, S, 24]."""


def flattened_keys(g: Builder, x: str) -> str:
    """Keys are transposed with batch and heads in one axis, as an exporter writes it."""
    keys = heads(g, x, 6, 4)
    flat = g("Reshape", keys, g("Concat", [-1], g("Slice", g("Shape", keys), [2], [3]), [4], axis=0))
    back = g("Concat", g("Slice", g("Shape", keys), [0], [2]), [4], g("Slice", g("Shape", keys), [2], [3]), axis=0)
    return str(g("Reshape", g("Transpose", flat, perm=[0, 2, 1]), back))


def lonely_axis(g: Builder, x: str) -> str:
    """What is left of [B, S, 3, heads, width] when one part stays."""
    turned = g("Transpose", g("Reshape", x, [0, 0, 1, 6, 4]), perm=[2, 0, 3, 1, 4])
    return str(g("Gather", turned, np.array(0), axis=0))


def read_twice(g: Builder, x: str) -> str:
    """The value in between is somebody else's too."""
    turned = g("Transpose", x, perm=[0, 2, 1])
    return str(g("Add", g("Transpose", turned, perm=[0, 2, 1]), g("ReduceSum", turned, [1, 2], keepdims=1)))


VIEWS: dict[str, tuple[View, list[str]]] = {
    "reshape, reshape": (
        lambda g, x: g("Reshape", g("Reshape", x, [0, -1, 4]), [0, -1, 8, 3]),
        ["Reshape"],
    ),
    "there and back": (lambda g, x: g("Reshape", g("Reshape", x, [0, 0, 4, 6]), [0, 0, 24]), []),
    "transpose, transpose": (
        lambda g, x: g("Transpose", g("Transpose", x, perm=[2, 0, 1]), perm=[1, 0, 2]),
        ["Transpose"],
    ),
    "two transposes undo each other": (
        lambda g, x: g("Transpose", g("Transpose", x, perm=[2, 0, 1]), perm=[1, 2, 0]),
        [],
    ),
    "unsqueeze, squeeze": (lambda g, x: g("Squeeze", g("Unsqueeze", x, [1]), [1]), []),
    "a lonely axis": (lonely_axis, ["Reshape", "Transpose"]),
    "flattened keys": (flattened_keys, ["Reshape", "Transpose"]),
    "a transpose that only moves a lonely axis": (
        lambda g, x: g("Transpose", g("Unsqueeze", x, [0]), perm=[1, 0, 2, 3]),
        ["Reshape"],
    ),
    "the whole slice": (lambda g, x: g("Slice", x, [0], [FAR], [1]), []),
    "the whole slice of what is static": (lambda g, x: g("Slice", x, [0], [24], [2]), []),
    "the first slots": (lambda g, x: g("Slice", x, [0], [1000], [1]), ["Slice"]),
    "backwards": (lambda g, x: g("Slice", x, [-1], [-FAR], [2], [-1]), ["Slice"]),
    "expand to the same": (lambda g, x: g("Expand", x, [1, 1, 24]), []),
    "heads": (lambda g, x: heads(g, x, 6, 4), ["Reshape", "Transpose"]),
    "merged": (
        lambda g, x: g("Reshape", g("Transpose", x, perm=[0, 2, 1]), [0, -1]),
        ["Transpose", "Reshape"],
    ),
}


def viewed(view: View, rank: int = 0) -> ir.Model:
    """A view between two other ops, or, if its rank is said, of what the graph puts out."""
    g = Builder("views")
    y = view(g, g("Relu", g.input("x", "B", "S", 24)))
    if rank:
        g.output(y, *(f"out{k}" for k in range(rank)))
    else:
        g.output(g("Flatten", g("Neg", y), axis=0), 1, None)
    return ir.from_proto(g.model())


def shortened(model: ir.Model, touched: Collection[str] | None = None) -> ir.Model:
    normal = normalize(model)
    names = {value.name or "" for node in normal.model.graph for value in node.outputs}
    shorten_views(normal.model, dict(normal.facts.shapes), names if touched is None else touched)
    return normal.model


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    view, left = VIEWS[name]
    model = viewed(view)
    short = shortened(model)
    assert ops(short) == ["Relu", *left, "Neg", "Flatten"]
    same(model, short)


@pytest.mark.parametrize(
    ("name", "rank"), [("reshape, reshape", 4), ("a lonely axis", 4), ("two transposes undo each other", 3)]
)
def test_outputs_keep_their_names(name: str, rank: int) -> None:
    """Those of their dims, too."""
    model = viewed(VIEWS[name][0], rank)
    short = shortened(model)
    assert ops(short) == ["Relu", *VIEWS[name][1]]
    assert [(value.name, value.shape) for value in short.graph.outputs] == [
        (value.name, value.shape) for value in model.graph.outputs
    ]
    same(model, short)


def test_outputs_behind_an_identity_keep_the_names_of_their_dims() -> None:
    """A file may call one length by two names, as PaddlePaddle does."""
    g = Builder("outputs")
    hidden = g("Relu", linear(g, g.input("x", "B", "S", 8), "up", 8, 12))
    y = linear(g, hidden, "down", 12, 8)
    g.output(g("Identity", y), "B2", "S2", 8)
    model = g.model()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, ["B", "S", 8]))
    (slim,) = prune_graph(model, 0.5).model.graph.output
    assert slim == model.graph.output[0]


def test_what_others_read_stays() -> None:
    model = viewed(read_twice)
    short = shortened(model)
    assert ops(short).count("Transpose") == 2
    same(model, short)


def test_what_pruning_did_not_touch_is_as_it_was_written() -> None:
    model = viewed(VIEWS["transpose, transpose"][0])
    assert ops(shortened(model, touched=())) == ["Relu", "Transpose", "Transpose", "Neg", "Flatten"]


# ---- scaled lengths ------------------------------------------------------------------------------------------------


def into_concat(g: Builder, x: str) -> str:
    lengths = g("Shape", x)
    target = g("Concat", g("Slice", lengths, [0], [2]), [12], [4], axis=0)
    return str(g("Reshape", x, g("Div", target, [1, 1, 2, 1])))


def past_gather(g: Builder, x: str) -> str:
    length = g("Gather", g("Mul", g("Shape", x), [1, 1, 2]), np.array([1]), axis=0)
    return str(g("Reshape", x, g("Concat", [-1], length, [24], axis=0)))


def past_slice(g: Builder, x: str) -> str:
    front = g("Slice", g("Mul", g("Shape", x), [1, 1, 2]), [-3], [-1])
    return str(g("Reshape", x, g("Concat", front, [3, 8], axis=0)))


def needed(g: Builder, x: str) -> str:
    length = g("Gather", g("Div", g("Shape", x), [1, 1, 2]), np.array([2]), axis=0)
    return str(g("Reshape", x, g("Concat", [0, -1], length, axis=0)))


@pytest.mark.parametrize(("view", "left"), [(into_concat, 0), (past_gather, 0), (past_slice, 0), (needed, 1)])
def test_scales(view: View, left: int) -> None:
    model = viewed(view)
    shapes = normalize(model).facts.shapes
    short = model.clone()
    push_scales(short.graph, shapes)
    ir.passes.common.RemoveUnusedNodesPass()(short)
    assert sum(op in ("Mul", "Div") for op in ops(short)) == left
    same(model, short)


# ---- parts ---------------------------------------------------------------------------------------------------------


def packed_gemm() -> onnx.ModelProto:
    """Tokens in one axis, so that a Gemm with a transposed weight makes q, k and v."""
    g = Builder("packed_gemm")
    h = stem(g)
    flat = g("Reshape", h, [-1, E])
    packed = g("Gemm", flat, g.weight("w_qkv", 3 * H * D, E), g.weight("b_qkv", 3 * H * D), transB=1)
    packed = g(
        "Transpose", g("Reshape", packed, g("Concat", g("Shape", h, end=2), [3, H, D], axis=0)), perm=[2, 0, 3, 1, 4]
    )
    q, k, v = (g("Gather", packed, np.array(part), axis=0) for part in range(3))
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def packed_conv() -> onnx.ModelProto:
    """A 1x1 Conv makes q, k and v of an image's pixels."""
    g = Builder("packed_conv")
    h = g("Relu", conv(g, g.input("x", "B", 3, 6, 6), "in", 3, E))
    packed = g("Reshape", conv(g, h, "qkv", E, 3 * H * D, k=1), [0, 3, H, D, 36])
    q, k, v = (g("Gather", packed, np.array(part), axis=1) for part in range(3))
    scores = g("Softmax", g("MatMul", g("Transpose", q, perm=[0, 1, 3, 2]), k), axis=-1)
    mixed = g("Reshape", g("MatMul", v, g("Transpose", scores, perm=[0, 1, 3, 2])), [0, H * D, 6, 6])
    g.output(conv(g, mixed, "o", H * D, 5), "B", 5, 6, 6)
    return g.model()


def no_bias() -> onnx.ModelProto:
    g = Builder("no_bias")
    h = stem(g)
    packed = g("Reshape", linear(g, h, "qkv", E, 3 * H * D, bias=False), [0, 0, 3, H, D])
    q, k, v = (heads_of(g, g("Gather", packed, np.array(part), axis=2)) for part in range(3))
    return finish(g, g("Add", h, merge(g, attend(g, q, k, v), "o")))


def heads_of(g: Builder, x: str) -> str:
    return str(g("Transpose", x, perm=[0, 2, 1, 3]))


def old() -> onnx.ModelProto:
    """Before opset 13 a Split has its lengths as an attribute."""
    proto = no_bias()
    proto.opset_import[0].version = 12
    onnx.checker.check_model(proto, full_check=True)
    return proto


PACKED = {
    "packed_3hd": packed_3hd, "packed_h3d": packed_h3d, "packed_h_3d": packed_h_3d, "gemm": packed_gemm,
    "conv": packed_conv, "no_bias": no_bias, "opset 12": old,
}  # fmt: skip
HALVES = {"head": 0.34, "qk_dim": 0.5, "v_dim": 0.25}


CASES = [*((name, HALVES) for name in PACKED), ("packed_3hd", {"head": 0.34}), ("packed_h3d", {"v_dim": 0.5})]


@pytest.mark.parametrize(("name", "ratio"), CASES)
def test_one_projection_makes_all_three_again(name: str, ratio: dict[str, float]) -> None:
    proto = PACKED[name]()
    result = prune_graph(proto, ratio)
    proof = result.report.verify
    assert proof is not None and proof.ok and not proof.vacuous
    projections = ("MatMul", "Gemm", "Conv")
    counts = [sum(op in projections for op in ops(model)) for model in (ir.from_proto(proto), result.ir_model)]
    assert counts[0] == counts[1]
    names = {tensor.name for tensor in proto.graph.initializer if tensor.name.startswith(("w_", "b_"))}
    assert names <= set(result.ir_model.graph.initializers)
    wide = result.ir_model.graph.initializers["w_qkv"].shape
    shares = {kind: 1 - ratio.get(kind, 0) for kind in HALVES}
    kept = round(H * shares["head"]) * round(D * shares["qk_dim"]) * 2 + round(H * shares["head"]) * round(
        D * shares["v_dim"]
    )
    assert wide is not None and kept in wide.numpy()


def test_parts_are_pruned_again() -> None:
    """What is one again can be taken apart by the analysis: widths of queries and of values are two choices."""
    once = prune_graph(packed_3hd(), {"head": 0.34}).model
    kinds = {group.kind for group in prune_graph(once, {"qk_dim": 0.25, "v_dim": 0.5}).report.groups}
    assert kinds == {"qk_dim", "v_dim"}


def test_what_was_written_apart_stays_apart() -> None:
    g = Builder("apart")
    slim = prune_graph(finish(g, separate(g, stem(g))), HALVES).ir_model
    assert {"w_q", "w_k", "w_v"} <= set(slim.graph.initializers) and "Split" not in ops(slim)
