"""One network in several spellings: what the analysis makes of it is the same."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.analyze import analyze_graph
from prunegraph.passes.normalize import normalize
from tests.graphs.builder import Builder
from tests.graphs.rules import Found, check_parts, in_words


def normal_form(proto: onnx.ModelProto) -> Found:
    """A model, its normal form and its groups."""
    model = ir.from_proto(proto)
    normal = normalize(model)
    return model, normal, analyze_graph(normal.model.graph, normal.facts)


def spelt_out_norm(*, pooled: bool) -> onnx.ModelProto:
    """A residual FFN and a LayerNormalization in parts, its means taken by ReduceMean or by GlobalAveragePool."""
    g = Builder("spelt_out_norm", 18)

    def mean(x: str) -> str:
        return str(g("GlobalAveragePool", x) if pooled else g("ReduceMean", x, [2], keepdims=1))

    h = g("MatMul", g.input("x", "batch", "row", 8), g.weight("w_in", 8, 16))
    f = g("MatMul", g("Relu", g("MatMul", h, g.weight("up", 16, 40))), g.weight("down", 40, 16))
    s = g("Add", h, f)
    centred = g("Sub", s, mean(s))
    deviation = g("Sqrt", g("Add", mean(g("Mul", centred, centred)), 1e-3))
    y = g("Mul", g("Div", centred, deviation), g.weight("scale", 16, scale=1.0))
    g.output(g("MatMul", y, g.weight("out", 16, 5)), None, None, 5)
    return g.model()


@pytest.mark.parametrize("pooled", [False, True])
def test_a_global_pool_is_a_reduction(pooled: bool) -> None:
    """The width that it goes over shrinks, under the masked mean; batch and rows pass through."""
    model, normal, analysis = normal_form(spelt_out_norm(pooled=pooled))
    assert in_words(analysis) == "hidden 16~, ffn 40"
    check_parts(model, normal, analysis)
