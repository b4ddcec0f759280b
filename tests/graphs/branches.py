"""Ifs whose branches hold weights, as merged decoders have them: one branch with a cache, one without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from tests.graphs.attention import D, E, H, attend, heads
from tests.graphs.builder import Builder, linear


class Branch(Builder):
    """Writes a graph within a graph; its weights are those of the graph unless it is said to have its own."""

    def __init__(self, outer: Builder, name: str, *, own: bool = False) -> None:
        super().__init__(f"{outer.name}_{name}", outer.opset)
        self.prefix, self.own = name, own
        if not own:
            self.initializers, self.rng = outer.initializers, outer.rng

    def _name(self, stem: str) -> str:
        return f"{self.prefix}_{super()._name(stem)}"

    def graph(self, *outputs: str) -> onnx.GraphProto:
        self.outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        tensors = [onnx.numpy_helper.from_array(a, name) for name, a in self.initializers.items()] if self.own else []
        return helper.make_graph(self.nodes, self.prefix, self.inputs, self.outputs, tensors)


Body = Callable[[Branch], Sequence[str]]


def either(g: Builder, then: Body, other: Body, n: int, *, own: bool = False) -> Any:
    """An If on the input `use_cache`, both branches written by functions."""
    graphs = {}
    for name, body in (("then", then), ("else", other)):
        branch = Branch(g, name, own=own)
        graphs[f"{name}_branch"] = branch.graph(*body(branch))
    return g("If", "use_cache", n=n, **graphs)


def inputs(name: str) -> Builder:
    g = Builder(name)
    g.input("x", "B", "S", 7)
    g.input("use_cache", 1, dtype=TensorProto.BOOL)
    return g


def _mlp(g: Builder, x: str, name: str, act: str) -> str:
    return str(g("Add", x, linear(g, g(act, linear(g, x, f"{name}_up", E, 14)), f"{name}_down", 14, E)))


def shared_branches() -> onnx.ModelProto:
    """Both branches read the same weights, and do something else in between."""
    g = inputs("shared_branches")
    h = linear(g, "x", "in", 7, E)
    y = either(g, lambda b: [_mlp(b, h, "ffn", "Relu")], lambda b: [_mlp(b, h, "ffn", "Tanh")], 1)
    g.output(linear(g, y, "out", E, 5), "B", "S", 5)
    return g.model()


def own_branches() -> onnx.ModelProto:
    """Every branch has weights of its own: neurons are chosen apart, the hidden size is one."""
    g = inputs("own_branches")
    h = linear(g, "x", "in", 7, E)
    y = either(g, lambda b: [_mlp(b, h, "one", "Relu")], lambda b: [_mlp(b, h, "two", "Relu")], 1, own=True)
    g.output(linear(g, y, "out", E, 5), "B", "S", 5)
    return g.model()


def nested_branches() -> onnx.ModelProto:
    """A branch of a branch holds weights, too; the other one hands on what it was given."""
    g = inputs("nested_branches")
    h = linear(g, "x", "in", 7, E)

    def outer(b: Branch) -> list[str]:
        middle = _mlp(b, h, "outer", "Relu")
        inner = Branch(b, "inner")
        kept = Branch(b, "kept")
        graphs = {
            "then_branch": inner.graph(_mlp(inner, middle, "inner", "Tanh")),
            "else_branch": kept.graph(kept("Neg", middle)),
        }
        large = b("ReduceMax", middle, keepdims=0)
        return [b("If", b("Greater", large, 1.0), **graphs)]

    y = either(g, outer, lambda b: [b("Identity", h)], 1)
    g.output(linear(g, y, "out", E, 5), "B", "S", 5)
    return g.model()


def merged_decoder() -> onnx.ModelProto:
    """A decoder layer with self and cross attention and a feed-forward, once with caches and once without."""
    g = inputs("merged_decoder")
    g.input("memory", "B", "T", 7)
    for name in ("past_k", "past_v", "past_cross_k", "past_cross_v"):
        g.input(name, "B", H, "C" if "cross" in name else "P", D)

    def decoder(b: Branch, cached: bool) -> list[str]:
        h = linear(b, "x", "in", 7, E)
        q, k, v = (heads(b, linear(b, h, f"self_{n}", E, H * D)) for n in "qkv")
        if cached:
            k, v = b("Concat", "past_k", k, axis=2), b("Concat", "past_v", v, axis=2)
        h = b("Add", h, linear(b, b("Reshape", attend(b, q, k, v), [0, 0, H * D]), "self_o", H * D, E))
        cross = ["past_cross_k", "past_cross_v"]
        if not cached:
            cross = [heads(b, linear(b, "memory", f"cross_{n}", 7, H * D)) for n in "kv"]
        q = heads(b, linear(b, h, "cross_q", E, H * D))
        h = b("Add", h, linear(b, b("Reshape", attend(b, q, *cross), [0, 0, H * D]), "cross_o", H * D, E))
        logits = linear(b, _mlp(b, h, "ffn", "Relu"), "out", E, 5)
        return [logits, k, v, *((b("Identity", name) for name in cross) if cached else cross)]

    names = either(g, lambda b: decoder(b, True), lambda b: decoder(b, False), 5)
    g.output(names[0], "B", "S", 5)
    for name in names[1:]:
        g.output(name, "B", H, None, D)
    return g.model()


def masked_decoder() -> onnx.ModelProto:
    """Attention with a mask for what there is in a branch."""
    g = inputs("masked_decoder")
    g.input("mask", "B", "S")
    for name in ("past_k", "past_v"):
        g.input(name, "B", H, "past", D)

    def decoder(b: Branch, cached: bool) -> list[str]:
        q, k, v = (heads(b, linear(b, "x", f"self_{n}", 7, H * D)) for n in "qkv")
        if cached:
            k, v = b("Concat", "past_k", k, axis=2), b("Concat", "past_v", v, axis=2)
        shown = b("Reshape", "mask", [0, 1, 1, -1])
        y = attend(b, q, k, v, bias=b("Mul", b("Sub", shown, 1.0), 100.0))
        return [linear(b, b("Reshape", y, [0, 0, H * D]), "self_o", H * D, E), k, v]

    logits, k, v = either(g, lambda b: decoder(b, True), lambda b: decoder(b, False), 3)
    g.output(logits, "B", "S", E)
    for name in (k, v):
        g.output(name, "B", H, None, D)
    return g.model()


BRANCHES = (shared_branches, own_branches, nested_branches, merged_decoder)
