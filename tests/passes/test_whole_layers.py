"""Whole layers: a group of which nothing stays takes its sub-block with it, and the rest computes what it should."""

from __future__ import annotations

import functools
import logging
import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from prunegraph import Amount, prune_graph
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.api import verify_files
from prunegraph.errors import NothingToPrune, UsageError
from prunegraph.observe.attention_sites import HEAD_KINDS
from prunegraph.passes.choose.whole_layers import WHOLE_KINDS, dropped, with_whole
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.result import PruneResult, apply
from tests.analysis.golden import read
from tests.graphs import fused as graphs_fused
from tests.graphs import quant as graphs_quant
from tests.graphs.builder import Builder, layer_norm, linear
from tests.graphs.selections import selections
from tests.graphs.skeleton import analyzed_skeleton, load_skeleton
from tests.graphs.small import GRAPHS, analysed, analysed_model
from tests.laws.test_laws import assert_same, weights

pytestmark = pytest.mark.slow

few = settings(derandomize=True, deadline=None, max_examples=3, database=None, phases=[Phase.generate])
SKELETONS = ("zoo_bert", "zoo_gpt2", "zoo_llama", "zoo_llama_legacy", "zoo_deit", "zoo_t5", "zoo_swin", "zoo_cait")
BLOCK = re.compile(rf"^({'|'.join(WHOLE_KINDS)})\.\d+ .* exact:", re.MULTILINE)
WITH_BLOCKS = [name for name, groups in read().items() if BLOCK.search(groups)]


def nothing_of(groups: list[Group]) -> Selection:
    return Selection({group.id: np.zeros(group.shape, dtype=bool) for group in groups})


def removed(name: str, *patterns: str) -> PruneResult:
    model = analyzed_skeleton(name)
    result = apply(model, nothing_of(dropped(model.analysis.groups, patterns)))
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.exact and proof.moved > 1e-3 and proof.max_rel_error < 2e-5
    proto = ir.to_proto(result.ir_model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    graph = analyzed_skeleton(name).original.graph
    for edge in "inputs", "outputs":
        assert [v.name for v in getattr(graph, edge)] == [v.name for v in getattr(result.ir_model.graph, edge)]
    return result


@pytest.mark.parametrize("name", SKELETONS)
@pytest.mark.parametrize("patterns", [("head.1", "kv_group.1", "ffn.0"), ("head.*", "kv_group.*"), ("*",)])
def test_sub_blocks_go(name: str, patterns: tuple[str, ...]) -> None:
    result = removed(name, *patterns)
    whole = {group.id for group in dropped(analyzed_skeleton(name).analysis.groups, patterns)}
    pruned = {group.id for group in result.report.groups if group.after == 0}
    assert whole <= pruned
    places = {p.name for g in analyzed_skeleton(name).analysis.groups if g.id in whole for p in g.places}
    left = weights(result.ir_model)
    assert not [place for place in places if place in left and left[place].size >= 2 and "weight" in place.lower()]
    assert result.report.params[1] < result.report.params[0] and result.report.macs[1] < result.report.macs[0]


@pytest.mark.parametrize("name", ["minilm_l3", "deit_tiny_dynamo"])
def test_real_sizes(name: str) -> None:
    """The parameters that go are those of the sub-blocks: four matrices and three biases, two matrices and one bias."""
    model = analyzed_skeleton(name)
    width, mlp = {"minilm_l3": (384, 1536), "deit_tiny_dynamo": (192, 768)}[name]
    result = removed(name, "head.1", "ffn.2")
    before, after = result.report.params
    expected = 4 * width**2 + 3 * width + 2 * width * mlp + mlp + pre_norms(name, width)
    assert abs(expected - (before - after)) < 64  # numbers that nodes had in common, constants that went with them
    assert {g.id for g in result.report.groups} == {"head.1", "qk_dim.1", "v_dim.1", "ffn.2"}
    assert len(list(result.ir_model.graph)) < len(list(model.original.graph))


def pre_norms(name: str, width: int) -> int:
    """Where a norm stands before a sub-block, it goes too."""
    return 2 * 2 * width if name.startswith("deit") else 0


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_each_group_whole(name: str) -> None:
    """Every group alone: it goes and the rest is equal, or it is refused with a reason."""
    graph = analysed(name)
    model = Analyzed(graph.model, normalized_of(name), graph.analysis)
    for group in dropped(graph.analysis.groups, "*"):
        try:
            result = apply(model, nothing_of([group]))
        except UsageError as refusal:
            assert "cannot go whole" in str(refusal), group.id
            continue
        assert result.report.verify is not None and result.report.verify.max_rel_error < 2e-5, group.id
        assert (group.id, 0) in {(g.id, g.after) for g in result.report.groups}


@functools.cache
def normalized_of(name: str):  # type: ignore[no-untyped-def]
    from prunegraph.passes.normalize import normalize

    return normalize(ir.from_proto(GRAPHS[name]()))


@pytest.mark.parametrize("name", ["zoo_bert", "zoo_llama", "zoo_deit"])
@few
@given(data=st.data())
def test_random_selections_and_again(name: str, data: st.DataObject) -> None:
    """Any units of any groups, some groups whole; and pruning the result again is pruning once by both."""
    model = analyzed_skeleton(name)
    groups = model.analysis.groups
    first = data.draw(selections(groups, least=2))
    chosen_ids = data.draw(
        st.sets(st.sampled_from([group.id for group in groups if group.kind in WHOLE_KINDS]), min_size=1)
    )
    first = with_whole(first, model.normalized.model, model.analysis, chosen_ids, 1.0)
    result = apply(model, first)
    assert result.report.verify is not None and result.report.verify.max_rel_error < 2e-5
    again = analysed_model(ir.to_proto(result.ir_model))
    left = remove_whole_groups(model.normalized.model, model.analysis.solution, first.keeps(groups)).left
    kinds = [group.kind for group in groups if left is None or group.dim in left]
    assume([group.kind for group in again.analysis.groups] == kinds)  # without any sub-block, `hidden` has another name
    second = data.draw(selections(again.analysis.groups))
    at_once = apply(model, first.then(second, groups, left), check=False)
    twice = weights(apply(load_and_analyze(ir.to_proto(result.ir_model)), second, check=False).ir_model)
    once = weights(at_once.ir_model)
    weight_names = {place.name for group in groups for place in group.places} & once.keys()
    assert_same({name: twice[name] for name in weight_names}, {name: once[name] for name in weight_names})


FUSED = (
    "onnx_attention",
    "onnx_attention_gqa",
    "attention_bias",
    "multi_head",
    "group_query_rotary",
    "embed_layer_norm",
)
QUANTIZED = ("qdq_ffn", "dynamic", "dynamic_fused", "four_bits", "integer_attention")


@pytest.mark.parametrize("name", [*FUSED, *QUANTIZED])
def test_fused_and_quantized_sub_blocks_go(name: str) -> None:
    make = getattr(graphs_fused if name in FUSED else graphs_quant, name)
    model = load_and_analyze(make())
    groups = dropped(model.analysis.groups, ["*"])
    result = apply(model, nothing_of(groups))
    assert groups and {group.id for group in groups} <= {g.id for g in result.report.groups if g.after == 0}
    assert result.report.verify is not None and result.report.verify.moved > 1e-3


def test_threshold() -> None:
    model = load_skeleton("zoo_bert")
    kept = prune_graph(model, {"head": 0.75})
    result = prune_graph(model, Amount({"head": 0.75}, layer_threshold=0.7))
    assert {group.after for group in kept.report.groups} == {1}
    assert {group.after for group in result.report.groups} == {0}
    assert not any(node.op_type == "Softmax" for node in result.ir_model.graph)


def test_only_what_is_dropped_goes() -> None:
    result = prune_graph(load_skeleton("zoo_bert"), Amount(drop=["ffn.*encoder.layer.1.*"]))
    assert [(g.id, g.after) for g in result.report.groups] == [("ffn.1", 0)]
    with pytest.raises(UsageError, match="no group to drop matches"):
        prune_graph(load_skeleton("zoo_bert"), Amount(drop=["hidden.0"]))


def test_a_plan_with_nothing_of_a_group_is_verified() -> None:
    model = load_skeleton("zoo_llama")
    result = prune_graph(model, Amount({"ffn": 0.5, "hidden": 0.25}, drop=["kv_group.0"]))
    plan = Selection.from_json(result.selection.to_json())
    assert not plan.keep["kv_group.0"].any()
    assert verify_files(model, result.model, plan).ok
    other = Selection({**plan.keep, "kv_group.0": np.arange(2) < 1})
    assert not verify_files(model, result.model, other).ok


def test_what_cannot_go_keeps_units(caplog: pytest.LogCaptureFixture) -> None:
    """LeViT has an attention that nothing goes around: without it, nothing would depend on the image."""
    model = analyzed_skeleton("zoo_levit")
    with caplog.at_level(logging.WARNING, logger="prunegraph.passes.choose.whole_layers"):
        settled = with_whole(Selection({}), model.normalized.model, model.analysis, ["head.1", "ffn.0"], 1.0)
    assert set(settled.keep) == {"ffn.0"}
    assert "head.1 cannot go whole" in caplog.text and "would be constant" in caplog.text
    with pytest.raises(UsageError, match=r"head\.1 cannot go whole"):
        apply(model, nothing_of(dropped(model.analysis.groups, ["head.1"])))
    with pytest.raises(NothingToPrune, match=r"none of head\.1 can go whole"):
        prune_graph(load_skeleton("zoo_levit"), Amount(drop=["head.1"]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pre", [True, False])
def test_what_is_left_of_an_ffn(pre: bool, bias: bool) -> None:
    """`x + b` with a bias, `x` without one; a norm stays where it normalizes the sum."""
    g = Builder(f"ffn_{pre}_{bias}")
    x = g("Mul", g.input("x", "batch", "row", 8), g.weight("scale", 8))
    h = layer_norm(g, x, "norm", 8) if pre else x
    h = linear(g, g("Relu", linear(g, h, "up", 8, 16)), "down", 16, 8, bias=bias)
    y = g("Add", x, h)
    g.output(g("Tanh", y if pre else layer_norm(g, y, "norm", 8)), "batch", "row", 8)
    result = prune_graph(g.model(), Amount(drop=["ffn.0"]))
    left = ["Mul", *(["Add"] if bias else []), *([] if pre else ["LayerNormalization"]), "Tanh"]
    assert [node.op_type for node in result.ir_model.graph] == left
    constants = [array for name, array in weights(result.ir_model).items() if "constant" in name]
    assert [array.reshape(-1).tolist() for array in constants] == ([g.initializers["b_down"].tolist()] if bias else [])


def test_an_output_does_not_become_constant() -> None:
    g = Builder("no_residual")
    h = g("Relu", linear(g, g.input("x", "batch", 8), "up", 8, 16))
    g.output(linear(g, h, "down", 16, 8), "batch", 8)
    with pytest.raises(UsageError, match=r"output .* would be constant"):
        apply(load_and_analyze(g.model()), Selection({"ffn.0": np.zeros(16, dtype=bool)}))


def test_kinds_that_may_go() -> None:
    assert set(HEAD_KINDS) < set(WHOLE_KINDS)
    groups = analyzed_skeleton("zoo_bert").analysis.groups
    assert {group.kind for group in dropped(groups, ["*"])} == {"head", "ffn"}
