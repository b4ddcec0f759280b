"""Fused and quantized ops: the groups that the analysis finds, and that what Shrink makes is the masked original."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.analyze import analyze_graph
from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize import normalize
from prunegraph.passes.normalize.state_scales import state_scales
from tests.graphs import fused as graphs_fused
from tests.graphs import other as graphs_other
from tests.graphs import quant as graphs_quant
from tests.graphs.rules import check_parts, in_words, makers, normal_form

MAKERS = makers(graphs_fused) | makers(graphs_other) | makers(graphs_quant)

# The CPU provider has no kernel for these: for them the shapes of what they make are given.
NOT_ON_CPU: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "multi_head_packed": (
        {"x": (2, 9, 7), "multiheadattention1": (2, 9, 12)},
        "hidden 10, head 3, qk_dim 4/3",
    ),
    "multi_head_packed_kv": (
        {"x": (2, 9, 7), "memory": (2, 8, 7), "multiheadattention1": (2, 9, 12)},
        "hidden 10, ffn 10, head 3, qk_dim 4/3",
    ),
    "diffusion_block": (
        {
            "nhwcconv1": (2, 8, 8, 16),
            "groupnorm1": (2, 8, 8, 16),
            "nhwcconv2": (2, 8, 8, 24),
            "nhwcconv3": (2, 8, 8, 16),
            "skipgroupnorm1": (2, 8, 8, 16),
            "biassplitgelu1": (2, 64, 14),
            "biasadd1": (2, 64, 16),
            "gemmfastgelu1": (2, 64, 10),
        },
        "hidden 4, channel 24, ffn 14, dense 10",
    ),
}

GROUPS = {
    "attention": "hidden 10, head 3, qk_dim 4/3, v_dim 4/3",
    "attention_bias": "hidden 10, head 3, qk_dim 4/3, v_dim 6/3",
    "attention_cache": "hidden 10",
    "embed_layer_norm": "hidden 10~, ffn 14",
    "embed_layer_norm_masked": "hidden 10~, head 3, qk_dim 4/3, v_dim 4/3",
    "fused_conv": "channel 10, channel 14",
    "fused_gemm": "hidden 10, ffn 14, qk_dim 12",
    "fused_matmul": "hidden 10, head 3, qk_dim 4/3, v_dim 4/3, ffn 14",
    "gated_mixture": "hidden 10, ffn 14/4",
    "group_query": "hidden 10, kv_group 2, query_head 3/2, qk_dim 2/2",
    "group_query_cache": "hidden 10, query_head 3/2",
    "group_query_packed": "hidden 10, kv_group 2, query_head 3/2",
    "group_query_rotary": "hidden 10, kv_group 2, query_head 3/2, qk_dim 2",
    "microsoft_rotary": "hidden 10, head 3, qk_dim 2, qk_dim 4/3, v_dim 4/3",
    "mixture": "hidden 10, ffn 14/4",
    "multi_head": "hidden 10, head 3, qk_dim 4/3, v_dim 6/3",
    "multi_head_cache": "hidden 10",
    "multi_head_cross": "hidden 10, ffn 10, head 3, qk_dim 4/3",
    "onnx_attention": "hidden 10, head 3, qk_dim 4/3, v_dim 6/3",
    "onnx_attention_4d": "hidden 10, head 3, qk_dim 4/3, v_dim 4/3",
    "onnx_attention_cache": "hidden 10, query_head 3/2",
    "onnx_attention_gqa": "hidden 10, kv_group 2, query_head 3/2, qk_dim 4/2, v_dim 4/2",
    "onnx_rotary": "hidden 10, head 3, qk_dim 4, v_dim 4/3",
    "onnx_rotary_partial": "hidden 10~, head 3, qk_dim 2, qk_dim 4/3, v_dim 8/3",
    "skip_layer_norm": "hidden 10~, ffn 14",
    "cache_update": "ffn 10, ffn 10",
    "causal_conv": "ffn 10, ffn 14, ffn 10",
    "columns": "ffn 10, ffn 14",
    "grid_sample": "channel 10",
    "gru": "hidden 10, ffn 6",
    "lstm": "hidden 10, ffn 6/2",
    "lstm_states": "ffn 10, ffn 6",
    "max_pool_positions": "channel 14, channel 10",
    "picked_rows": "ffn 10, ffn 14, ffn 10",
    "rnn": "hidden 10, ffn 6",
    "dynamic": "hidden 10, ffn 14",
    "dynamic_conv": "channel 10, channel 14",
    "dynamic_fused": "hidden 10, ffn 14",
    "dynamic_lstm": "hidden 10, ffn 6/2",
    "dynamic_lstm_rows": "hidden 10, ffn 6",
    "four_bit_table": "hidden 4, ffn 14",
    "four_bits": "hidden 10, dense 4, ffn 6",
    "four_bits_odd": "hidden 10, ffn 6",
    "four_bits_odd_flat": "hidden 10, ffn 6",
    "four_bits_points": "hidden 10, dense 2, ffn 6",
    "integer_attention": "hidden 10, head 3, qk_dim 4/3",
    "integer_conv": "channel 10, channel 14",
    "integer_ffn": "hidden 10, ffn 14",
    "integer_image": "channel 10, channel 14",
    "integer_where": "ffn 10, ffn 14",
    "qdq_blocks": "hidden 10, ffn 4",
    "qdq_conv": "channel 10, channel 14",
    "qdq_ffn": "hidden 10, ffn 14",
    "qdq_rotary": "hidden 10, qk_dim 2, head 2, v_dim 4/2, qk_dim 2, head 2, v_dim 4/2",
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str) -> None:
    assert in_words(normal_form(MAKERS[name])[2]) == GROUPS[name]


def test_every_graph_is_listed() -> None:
    assert set(MAKERS) == set(GROUPS) | set(NOT_ON_CPU)


@pytest.mark.parametrize("name", NOT_ON_CPU)
def test_groups_from_shapes(name: str) -> None:
    given, expected = NOT_ON_CPU[name]
    proto = MAKERS[name]()
    normal = normalize(ir.from_proto(proto))
    shapes = {n: tuple((k,) * normal.facts.probes for k in shape) for n, shape in _shapes(proto, given).items()}
    facts = Facts(normal.facts.probes, {**normal.facts.shapes, **shapes}, normal.facts.integers)
    state_scales(normal.model.graph, facts)
    assert in_words(analyze_graph(normal.model.graph, facts)) == expected


def _shapes(proto: onnx.ModelProto, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of all values, from those of some."""
    known = onnx.ModelProto()
    known.CopyFrom(proto)
    for value in (*known.graph.input, *known.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                dim.dim_value = given.get(value.name, (2, 9))[axis]
    hints = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in given.items()]
    known.graph.value_info.extend(hint for hint in hints if hint.name not in {v.name for v in known.graph.input})
    graph = onnx.shape_inference.infer_shapes(known, strict_mode=True, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: tuple(dim.dim_value for dim in v.type.tensor_type.shape.dim) for v in values}


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_shrunk_is_masked(name: str) -> None:
    check_parts(*normal_form(MAKERS[name]))


CACHES = {
    "onnx_attention_cache": "hidden 10, kv_group 2, qk_dim 4/2, query_head 3/2, v_dim 4/2",
    "multi_head_cache": "hidden 10, head 3, qk_dim 4/3",
    "attention_cache": "hidden 10, head 3, qk_dim 4/3",
    "group_query_cache": "hidden 10, kv_group 2, qk_dim 2/2, query_head 3/2",
}


@pytest.mark.parametrize("name", CACHES)
def test_caches_shrink_if_allowed(name: str) -> None:
    model, normal, analysis = normal_form(
        MAKERS[name], ("past*", "attention*", "multiheadattention*", "groupqueryattention*")
    )
    assert in_words(analysis) == CACHES[name]
    check_parts(model, normal, analysis)


@pytest.mark.parametrize("name", ["onnx_attention", "attention", "multi_head", "group_query", "group_query_packed"])
def test_scales_are_stated(name: str) -> None:
    """Heads get narrower, and the scale stays `1/sqrt` of what they were."""
    widths = {"group_query": 16, "group_query_packed": 16}
    graph = normal_form(MAKERS[name])[1].model.graph
    stated = [n.attributes["scale"].as_float() for n in graph if n.op_type.endswith("Attention")]
    assert stated == [pytest.approx(widths.get(name, 4) ** -0.5)]


def test_a_scale_that_is_stated_stays() -> None:
    graph = normal_form(MAKERS["onnx_attention_4d"])[1].model.graph
    assert [n.attributes["scale"].as_float() for n in graph if n.op_type == "Attention"] == [pytest.approx(0.3)]
