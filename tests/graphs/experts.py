"""Mixtures of experts: a router ranks them, their weights are looked up by position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.graphs.attention import finish, stem
from tests.graphs.builder import Builder

E, F, EXPERTS, BEST = 10, 6, 5, 2
"""Hidden size, neurons of an expert, experts, and how many see each token."""


def router(g: Builder, h: str) -> str:
    return str(g("MatMul", h, g.weight("w_router", E, EXPERTS)))


def experts(g: Builder, h: str, weights: str, chosen: str, *, nd: bool = False) -> str:
    """Every token through its own experts, `[B, S, E]`."""

    def picked(name: str, rows: int, columns: int) -> str:
        table = g.weight(name, EXPERTS, rows, columns)
        return str(g("GatherND", table, g("Unsqueeze", chosen, [-1])) if nd else g("Gather", table, chosen, axis=0))

    rows = g("Unsqueeze", h, [2, 3])
    inner = g("Relu", g("MatMul", rows, picked("w_up", E, F)))
    outer = g("Squeeze", g("MatMul", inner, picked("w_down", F, E)), [3])
    return str(g("ReduceSum", g("Mul", outer, g("Unsqueeze", weights, [-1])), [2], keepdims=0))


def mixture() -> onnx.ModelProto:
    """Softmax over all experts, the best two weighed anew."""
    g = Builder("mixture")
    h = stem(g)
    best, chosen = g("TopK", g("Softmax", router(g, h), axis=-1), [BEST], n=2)
    weights = g("Div", best, g("ReduceSum", best, [-1]))
    return finish(g, g("Add", h, experts(g, h, weights, chosen)))


def mixture_of_logits() -> onnx.ModelProto:
    """The best two logits, and a Softmax over them alone; the positions in another type."""
    g = Builder("mixture_of_logits")
    h = stem(g)
    best, chosen = g("TopK", router(g, h), [BEST], n=2)
    weights = g("Softmax", best, axis=-1)
    return finish(g, g("Add", h, experts(g, h, weights, g("Cast", chosen, to=TensorProto.INT32))))


def mixture_with_biases() -> onnx.ModelProto:
    """Gate and up as neighbours in one weight, their biases looked up too: what is added is no stream."""
    g = Builder("mixture_with_biases")
    h = stem(g)
    best, chosen = g("TopK", router(g, h), [BEST], n=2)

    def dense(x: str, name: str, rows: int, columns: int) -> str:
        picked = (g("Gather", g.weight(f"{part}_{name}", EXPERTS, *size), chosen, axis=0) for part, *size in (
            ("w", rows, columns), ("b", 1, columns)
        ))  # fmt: skip
        return str(g("Add", g("MatMul", x, next(picked)), next(picked)))

    both = dense(g("Unsqueeze", h, [2, 3]), "both", E, 2 * F)
    gate, up = (g("Slice", both, [k], [2**63 - 1], [4], [2]) for k in (0, 1))
    inner = g("Mul", g("Add", up, 1.0), g("Mul", gate, g("Sigmoid", gate)))
    outer = g("Squeeze", dense(inner, "down", F, E), [3])
    weights = g("Unsqueeze", g("Softmax", best, axis=-1), [-1])
    return finish(g, g("Add", h, g("ReduceSum", g("Mul", outer, weights), [2], keepdims=0)))


def mixture_by_nd() -> onnx.ModelProto:
    """Positions that are looked up by GatherND."""
    g = Builder("mixture_by_nd")
    h = stem(g)
    best, chosen = g("TopK", g("Softmax", router(g, h), axis=-1), [BEST], n=2)
    return finish(g, g("Add", h, experts(g, h, best, chosen, nd=True)))


def mixture_of_groups() -> onnx.ModelProto:
    """DeepSeek: six experts in two groups, the best group by its best two scores, and of that the best two experts."""
    g = Builder("mixture_of_groups")
    h = stem(g)
    scores = g("Sigmoid", g("MatMul", h, g.weight("w_router", E, 6)))
    biased = g("Add", scores, g.weight("b_router", 6, scale=0.1))
    grouped = g("Reshape", biased, [0, 0, 2, 3])
    best, _ = g("TopK", grouped, [2], axis=-1, n=2)
    totals = g("ReduceSum", best, [-1], keepdims=0)
    chosen = g("Equal", totals, g("ReduceMax", totals, axes=[-1]))
    open_ = g("Expand", g("Unsqueeze", chosen, [-1]), np.array([1, 1, 1, 3]))
    _, positions = g("TopK", g("Where", g("Reshape", open_, [0, 0, 6]), biased, 0.0), [BEST], n=2)
    weights = g("GatherElements", scores, positions, axis=2)

    def picked(name: str, rows: int, columns: int) -> str:
        return str(g("Gather", g.weight(name, 6, rows, columns), positions, axis=0))

    inner = g("Relu", g("MatMul", g("Unsqueeze", h, [2, 3]), picked("w_up", E, F)))
    outer = g("Squeeze", g("MatMul", inner, picked("w_down", F, E)), [3])
    return finish(g, g("Add", h, g("ReduceSum", g("Mul", outer, g("Unsqueeze", weights, [-1])), [2], keepdims=0)))


def mixture_that_counts() -> onnx.ModelProto:
    """Positions that are also compared with a number: they must stay what they are."""
    g = Builder("mixture_that_counts")
    h = stem(g)
    best, chosen = g("TopK", g("Softmax", router(g, h), axis=-1), [BEST], n=2)
    first = g("Cast", g("Less", g("Cast", chosen, to=TensorProto.FLOAT), 2.0), to=TensorProto.FLOAT)
    return finish(g, g("Add", h, experts(g, h, g("Mul", best, first), chosen)))


def mixture_of_the_worst() -> onnx.ModelProto:
    """A router that picks the smallest: a slot that is left out would not be the smallest."""
    g = Builder("mixture_of_the_worst")
    h = stem(g)
    best, chosen = g("TopK", g("Softmax", router(g, h), axis=-1), [BEST], n=2, largest=0)
    return finish(g, g("Add", h, experts(g, h, best, chosen)))


def mixture_of_two_routers() -> onnx.ModelProto:
    """Positions of two rankings in one tensor: neither ranking may lose slots by itself."""
    g = Builder("mixture_of_two_routers")
    h = stem(g)
    ranked = [g("TopK", g("MatMul", h, g.weight(f"w_{name}", E, EXPERTS)), [1], n=2) for name in ("left", "right")]
    best, chosen = (g("Concat", *parts, axis=-1) for parts in zip(*ranked, strict=True))
    return finish(g, g("Add", h, experts(g, h, best, chosen)))


def mixture_seen_by_a_branch() -> onnx.ModelProto:
    """Positions that the body of an If compares: they must stay what they are."""
    g = Builder("mixture_seen_by_a_branch")
    h = stem(g)
    best, chosen = g("TopK", g("Softmax", router(g, h), axis=-1), [BEST], n=2)
    info = helper.make_tensor_value_info("seen", TensorProto.FLOAT, None)
    cast = helper.make_node("Cast", [chosen], ["seen"], to=TensorProto.FLOAT)
    bodies = {f"{name}_branch": helper.make_graph([cast], name, [], [info]) for name in ("then", "else")}
    weights = g("Mul", best, g("If", g.const("always", True), **bodies))
    return finish(g, g("Add", h, experts(g, h, weights, chosen)))


EXPERT_GRAPHS: tuple[Callable[[], onnx.ModelProto], ...] = (
    mixture,
    mixture_of_logits,
    mixture_with_biases,
    mixture_by_nd,
    mixture_of_groups,
    mixture_that_counts,
    mixture_of_the_worst,
    mixture_of_two_routers,
    mixture_seen_by_a_branch,
)
