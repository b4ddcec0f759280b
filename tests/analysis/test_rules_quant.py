"""Quantized models: weights keep their types, blocks go whole, and the reference in floats is near."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.passes.prove.float_reference import unrounded
from prunegraph.passes.rewrite.shrink import shrink
from prunegraph.runtime.session import open_session, run
from tests.graphs import fused as graphs_fused
from tests.graphs import quant as graphs_quant
from tests.graphs.rules import makers, normal_form

MAKERS = makers(graphs_quant)


@pytest.mark.parametrize("name", ["qdq_ffn", "qdq_conv", "qdq_blocks"])
def test_weights_stay_quantized(name: str) -> None:
    """Normalizing folds no DequantizeLinear, and shrinking keeps every type."""
    model, normal, analysis = normal_form(MAKERS[name])
    halves = Selection({g.id: np.arange(g.units) < g.units // 2 for g in analysis.groups})
    slim = shrink(normal.model, analysis.solution, halves.keeps(analysis.groups)).model
    before, after = (
        {n: v.const_value.dtype for n, v in m.graph.initializers.items() if v.const_value} for m in (model, slim)
    )
    weights = {name for name, dtype in before.items() if dtype.is_integer() and dtype != ir.DataType.INT64}
    assert weights and {name: before[name] for name in weights} == {name: after[name] for name in weights}
    ops = [[node.op_type for node in m.graph] for m in (model, slim)]
    assert ops[0] == ops[1]


def test_blocks_go_whole() -> None:
    """Zero points stand two in a byte: blocks go in pairs, and what the rows of a weight state follows."""
    _, normal, analysis = normal_form(MAKERS["four_bits_points"])
    pairs = next(group for group in analysis.groups if group.kind == "dense")
    selection = Selection({pairs.id: np.array([False, True])})
    slim = shrink(normal.model, analysis.solution, selection.keeps(analysis.groups)).model
    node = next(node for node in slim.graph if node.op_type == "MatMulNBits")
    assert (node.attributes["K"].as_int(), node.attributes["N"].as_int()) == (32, 96)
    assert [tuple(slim.graph.initializers[n].shape or ()) for n in ("w_up", "w_mid", "s_mid", "z_mid")] == [
        (10, 32),
        (96, 2, 8),
        (96 * 2,),
        (96,),
    ]


def test_quantized_layers_choose_for_themselves() -> None:
    """A table of positions is copied per layer beside weights of 8 bits, too: they are integers, and no positions."""
    _, _, analysis = normal_form(MAKERS["qdq_rotary"])
    turned = [group for group in analysis.groups if group.kind == "qk_dim"]
    layers = [{str(place)[4] for place in group.places if str(place).startswith("w_q")} for group in turned]
    assert layers == [{"a"}, {"b"}]


@pytest.mark.parametrize("name", ["qdq_ffn", "qdq_conv", "dynamic", "dynamic_fused", "dynamic_conv"])
def test_unrounded_is_near(name: str) -> None:
    """Without rounding a model computes nearly the same, and rounds nowhere."""
    model, _, _ = normal_form(MAKERS[name])
    smooth = unrounded(model)
    inputs = {v.name: v.shape for v in model.graph.inputs}
    feeds = {
        str(n): np.random.default_rng(0).standard_normal([d if isinstance(d, int) else 3 for d in shape or ()])
        for n, shape in inputs.items()
    }
    feeds32 = {n: a.astype(np.float32) for n, a in feeds.items()}
    left, right = (_run(m, feeds32) for m in (model, smooth))
    assert 0 < np.abs(left - right).max() < 0.1 * np.abs(left).max()
    small = {n: np.nextafter(a, np.float32(2)) for n, a in feeds32.items()}
    assert 0 < np.abs(_run(smooth, small) - right).max() < 1e-6 * np.abs(right).max()


def test_unrounded_leaves_floats_alone() -> None:
    model, _, _ = normal_form(graphs_fused.attention)
    assert unrounded(model) is model


def _run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with open_session(model) as session:
        return run(session, feeds)[0]
