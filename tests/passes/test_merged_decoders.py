"""What merged decoders of sequence to sequence models add: empty caches, one table of positions in both branches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper

import prunegraph as pg
from tests.graphs.attention import D, E, H, heads
from tests.graphs.branches import Branch, either, inputs
from tests.graphs.builder import linear

BUCKETS, LAYERS = 9, 2


def biased_decoder() -> onnx.ModelProto:
    """Two layers that share a small table of relative positions; a branch that has caches hands out empty others."""
    g = inputs("biased_decoder")
    for k in range(LAYERS):
        for name in ("k", "v"):
            g.input(f"past_{name}{k}", "B", H, "P", D)

    def decoder(b: Branch, cached: bool) -> list[str]:
        h = linear(b, "x", "in", 7, E)
        length = b("Squeeze", b("Slice", b("Shape", "x"), [1], [2]), [0])
        rows = b("Range", np.array(0), length, np.array(1))
        apart = b(
            "Min", b("Abs", b("Sub", b("Unsqueeze", rows, [1]), b("Unsqueeze", rows, [0]))), np.array(BUCKETS - 1)
        )
        table = b.weight("bias_table", BUCKETS, H, scale=1.0)
        bias = b("Unsqueeze", b("Transpose", b("Gather", table, apart), perm=[2, 0, 1]), [0])
        caches = []
        for layer in range(LAYERS):
            q, k, v = (heads(b, linear(b, h, f"{n}{layer}", E, H * D)) for n in "qkv")
            if cached:
                k = b("Add", k, b("ReduceMean", f"past_k{layer}", axes=[2]))
                v = b("Add", v, b("ReduceMean", f"past_v{layer}", axes=[2]))
            scores = b("Add", b("Mul", b("MatMul", q, b("Transpose", k, perm=[0, 1, 3, 2])), 0.5), bias)
            mixed = b("Transpose", b("MatMul", b("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
            h = b("Add", h, linear(b, b("Reshape", mixed, [0, 0, H * D]), f"o{layer}", H * D, E))
            caches.append(b("ConstantOfShape", [0, H, 1, D]) if cached and layer else k)
        return [linear(b, h, "out", E, 5), *caches]

    names = either(g, lambda b: decoder(b, True), lambda b: decoder(b, False), 1 + LAYERS)
    g.output(names[0], "B", "S", 5)
    for name in names[1:]:
        g.output(name, None, H, None, D)
    return g.model()


def test_layers_that_share_a_table_choose_heads_of_their_own_and_an_empty_cache_shrinks_with_the_rest() -> None:
    proto = biased_decoder()
    scope = pg.Scope(allow_io=("past*", "if1.[12]"))
    graph = pg.analyze(proto, scope=scope)
    assert Counter(group.kind for group in graph.groups) == {"hidden": 1, "head": 2, "qk_dim": 2, "v_dim": 2}
    result = pg.prune_graph(proto, {"head": 0.4, "qk_dim": 0.5, "v_dim": 0.25}, scope=scope)
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3 and not proof.unseen
    assert [each.op_type for each in result.model.graph.node].count("If") == 1


def two_lengths() -> onnx.ModelProto:
    """Either branch works on an input of its own, and calls the length of that by the same name."""
    g = inputs("two_lengths")
    g.input("past", "B", 1, "P", 7)
    rows = g("Unsqueeze", "x", [1])

    def body(b: Branch, name: str) -> list[str]:
        h = b("Neg", b("Tanh", b("Neg", b("Tanh", linear(b, name, "in", 7, E)))))
        return [linear(b, b("ReduceMean", h, axes=[1, 2], keepdims=0), "out", E, 5)]

    g.output(either(g, lambda b: body(b, rows), lambda b: body(b, "past"), 1), "B", 5)
    model = g.model()
    for attribute in model.graph.node[-1].attribute:
        for node in attribute.g.node[:-3]:
            attribute.g.value_info.append(helper.make_tensor_value_info(node.output[0], 1, ["B", 1, "length", E]))
    return model


def test_names_of_lengths_in_branches_are_not_taken_for_lengths() -> None:
    """ONNX Runtime plans its memory by such names, and refuses to run side by side what differs."""
    result = pg.prune_graph(two_lengths(), {"ffn": 0.5})
    assert result.report.verify is not None and result.report.verify.ok
