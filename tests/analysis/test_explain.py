"""Explain: what an analysis found, as data and as text."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from prunegraph import Analysis, analyze
from prunegraph.analysis.explain import free_share, to_dict
from prunegraph.analysis.names import readable_names, scopes
from prunegraph.cli.explain_view import render
from prunegraph.cli.outline import blocks, modules, ranges, shared_prefix, shorten
from prunegraph.export.onnx_file import load
from tests.graphs.cli import FFN, classifier, frozen
from tests.graphs.decoder import llama


def text(analysis: Analysis, *, width: int = 100, verbose: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(render(analysis, title="classifier", verbose=verbose, width=width))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    return re.sub(r" +$", "", printed, flags=re.MULTILINE)


GOLDEN = """\
classifier: 1,139 parameters, 9 groups (1 hidden, 2 head, 2 qk_dim, 2 v_dim, 2 ffn)
85% of the parameters lie in exact groups (removing a unit equals zeroing it), 100% with the inexact
ones.

across the model
  group       units       one unit takes  of all  shrink together
  hidden.0    8 ~                    133   11.7%  embed, layer.0-1.(attn.(query, key, value, out),
                                                  norm1, fc1, fc2, norm2), head

layer.0-1  2 blocks alike
  head.0-1    2                      140   12.3%  attn.(query, key, value, out)
  qk_dim.0-1  4 per head              36    3.2%  attn.(query, key)
  v_dim.0-1   4 per head              34    3.0%  attn.(value, out)
  ffn.0-1     12                      17    1.5%  fc1, fc2

per head: every head keeps its own choice, all the same number; a unit is one in every head
~ inexact: the mean over this axis changes a little when units go; it is taken by 4 nodes
(layer.0.norm1.LayerNormalization, layer.0.norm2.LayerNormalization,
layer.1.norm1.LayerNormalization and 1 more); a plain ratio leaves such groups whole, --ratio
hidden=0.3 prunes them
warning: one unit of hidden.0, head.0, head.1 takes up to 12% of all parameters with it; --exclude
leaves a group whole

pinned  stays whole: 3 axes of weights
  axes  reason: the node, input or output to blame
     2  graph output: logits
        in head
     1  graph input: x
        in embed
Inputs and outputs keep their sizes; --allow-io NAME lets one shrink with the rest.
"""


def test_the_text_of_a_small_classifier() -> None:
    assert text(analyze(classifier())) == GOLDEN


def test_dims_that_all_heads_lose_alike_are_named() -> None:
    printed = text(analyze(llama(2)), width=300)
    assert "one choice for all heads: qk_dim.0: every head loses the same dims, as positions" in printed


def test_the_text_says_why_nothing_can_go() -> None:
    printed = text(analyze(frozen()))
    assert "Nothing can be removed" in printed
    assert "graph input: x" in printed and "graph output: y" in printed


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_name_is_lost(width: int) -> None:
    printed = text(analyze(classifier()), width=width)
    assert max(map(len, printed.splitlines())) <= width
    squeezed = re.sub(r"\s", "", printed)
    assert all(kind in squeezed for kind in ("hidden.0", "head.0-1", "qk_dim.0-1", "v_dim.0-1", "ffn.0-1"))
    assert "[" not in printed, "no markup and no weight's axes in the short form"


@pytest.mark.parametrize("width", [60, 80])
def test_no_name_is_broken_on_a_narrow_screen(width: int) -> None:
    analysis = analyze(classifier()).analysis
    printed = text(analysis, width=width)
    for group in analysis.groups:
        for place in group.places:
            for part in analysis.names.get(place.name, place.name).split("."):
                assert part.isdigit() or part in ("weight", "bias") or part in printed, part


def test_blocks_fold_in_whatever_order_their_groups_come() -> None:
    analysis = analyze(classifier()).analysis
    module_names = modules(analysis.groups, analysis.names)
    groups = list(analysis.groups)
    straight = blocks(groups, module_names)
    second = [group for group in groups if group.scope.startswith("layer.1")]
    shuffled = [group for group in groups if group not in second] + second[::-1]
    turned = blocks(shuffled, module_names)
    assert [block.title for block in turned] == [block.title for block in straight]
    rows = {tuple(group.id for group in row) for block in straight for row in block.members}
    assert {tuple(group.id for group in row) for block in turned for row in block.members} == rows
    assert len(second) > 1


DEEP = """\
across the model
  group            units           one unit takes  of all
  hidden.0         12 ~                     2,537    8.2%
      embed_tokens, layers.0-23.(input_layernorm,
      self_attn.(q_proj, k_proj, v_proj, o_proj),
      post_attention_layernorm, mlp.(gate_proj, up_proj,
      down_proj)), norm, lm_head

layers.0-23  24 blocks alike
  qk_dim.0-23      2                          656    2.1%
      cos, sin, self_attn.(q_proj, k_proj)
  kv_group.0-23    2                          288    0.9%
      self_attn.(q_proj, k_proj, v_proj, o_proj)
  query_head.0-23  2 per kv_group             192    0.6%
      self_attn.(q_proj, o_proj)
  v_dim.0-23       4 per kv_group              72    0.2%
      self_attn.(v_proj, o_proj)
  ffn.0-23         18                          36    0.1%
      mlp.(gate_proj, up_proj, down_proj)
"""


def test_two_dozen_layers_take_few_lines_on_a_narrow_screen() -> None:
    """Whatever order their weights come in, alike layers are one block, and no name is broken in the middle."""
    printed = text(analyze(llama(24)), width=60)
    assert DEEP in printed and len(printed.splitlines()) < 50
    assert "24 qk_dim, 24 kv_group, 24 query_head" in " ".join(printed.split())


def test_verbose_lists_every_group_every_weight_and_every_pin() -> None:
    analysis = analyze(classifier()).analysis
    printed = re.sub(r"\s", "", text(analysis, width=200, verbose=True))
    for group in analysis.groups:
        assert group.id in printed
        for place in group.places:
            name = re.sub(r"^layer\.\d\.", "", place.name)  # its block stands above it
            assert f"{name}[{place.axis}]={place.expression}" in printed or f"({name})[{place.axis}]" in printed
    for axis in analysis.pinned:
        assert all(re.sub(r"\s", "", pin.why) in printed and pin.where in printed for pin in axis.pins)


def test_data_keeps_the_contract() -> None:
    data = to_dict(analyze(classifier()))
    groups = {group["id"]: group for group in data["groups"]}
    assert {name: (g["kind"], g["units"], g["exact"], g["rows"]) for name, g in groups.items()} == {
        "hidden.0": ("hidden", 8, False, []),
        **{f"head.{k}": ("head", 2, True, []) for k in range(2)},
        **{f"qk_dim.{k}": ("qk_dim", 4, True, [2]) for k in range(2)},
        **{f"v_dim.{k}": ("v_dim", 4, True, [2]) for k in range(2)},
        **{f"ffn.{k}": ("ffn", FFN, True, []) for k in range(2)},
    }
    assert sorted(groups["qk_dim.1"]["where"])[-2:] == ["onnx::MatMul_107[1]", "onnx::MatMul_108[1]"]
    assert groups["ffn.0"]["scope"] == "layer.0.fc1"
    assert data["pins"] == [
        {"where": "x", "why": "graph input", "holds": ["onnx::MatMul_100[0]"]},
        {"where": "logits", "why": "graph output", "holds": ["onnx::MatMul_113[1]", "head.bias[0]"]},
    ]


def test_shares_count_every_parameter_once() -> None:
    """The head's bias alone lies on no group, and what the embedding takes is counted for no exact one."""
    analysis = analyze(classifier()).analysis
    assert analysis.params == sum(w.dims and int(np.prod(w.dims)) for w in floats(classifier()))
    assert free_share(analysis, exact=False) == (analysis.params - 3) / analysis.params
    alone = replace(analysis, groups=tuple(g for g in analysis.groups if g.kind == "ffn"))
    assert free_share(alone, exact=True) == sum(g.units * g.params for g in alone.groups) / analysis.params


def floats(model: onnx.ModelProto) -> list[TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]


def test_lost_names_are_found_again() -> None:
    names = readable_names(load(classifier()).graph)
    assert names["onnx::MatMul_101"] == "layer.0.attn.query.weight"
    assert names["layer.0.norm1.bias"] == "layer.0.norm1.bias"
    order = list(names)
    assert order.index("onnx::MatMul_101") < order.index("layer.0.norm1.weight") < order.index("onnx::MatMul_113")


def test_a_lost_name_without_a_scope_is_told_from_the_bias_beside() -> None:
    weight = numpy_helper.from_array(np.ones((4, 6), np.float32), "val_7")
    bias = numpy_helper.from_array(np.ones(6, np.float32), "pooler.dense.bias")
    nodes = [helper.make_node("MatMul", ["x", "val_7"], ["h"]), helper.make_node("Add", ["h", bias.name], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in (("x", 4), ("y", 6))]
    graph = helper.make_graph(nodes, "lost", ends[:1], ends[1:], [weight, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert readable_names(load(model).graph)["val_7"] == "pooler.dense.weight"


@pytest.mark.parametrize(
    ("weights", "scope"),
    [
        (["a.b.query.weight", "a.b.query.bias", "a.b.key.weight", "a.out.weight"], "a.b"),
        (["a.0.fc1.weight", "a.0.fc2.weight", "b.weight"], "a.0"),
        (["a.weight", "b.weight"], ""),
        (["cls_token"], "cls_token"),
    ],
)
def test_a_scope_is_what_most_weights_share(weights: list[str], scope: str) -> None:
    assert scopes({}, {0: [(name, 0) for name in weights]})[0] == scope


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a"], "a"),
        (["a", "a"], "a"),
        (["a.b", "a"], "a, a.b"),
        (["h.0.fc", "h.1.fc", "h.3.fc", "h.4.proj"], "h.(0-1,3.fc, 4.proj)"),
        (["b.0.qkv.part0", "b.0.qkv.part1", "b.1.qkv.part0", "b.1.qkv.part1"], "b.0-1.qkv.part0-1"),
        (["fc1", "fc2"], "fc1, fc2"),
        (["0.weight", "1.weight"], "0-1.weight"),
    ],
)
def test_lists_of_modules_in_short(names: list[str], short: str) -> None:
    assert shorten(names) == short


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["m.a.x", "m.a.y", "m.b"], "m."),
        (["m.a.x", "token"], "m.a."),
        (["layer.0.x", "layer.1.x"], ""),
        (["m.0.a.x", "m.0.b.x"], "m.0."),
        (["a", "b"], ""),
        ([], ""),
    ],
)
def test_what_all_names_begin_with(names: list[str], prefix: str) -> None:
    assert shared_prefix(names) == prefix


def test_blocks_that_differ_are_not_put_together() -> None:
    """One block of two with a wider FFN: two blocks with a title each."""
    analysis = analyze(classifier()).analysis
    groups = [replace(g, units=g.units + 4) if g.id == "ffn.1" else g for g in analysis.groups]
    outline = blocks(groups, modules(groups, analysis.names))
    assert [block.title for block in outline] == ["", "layer.0", "layer.1"]
    assert [len(block.members) for block in outline] == [1, 4, 4]


def test_every_group_stands_in_exactly_one_row() -> None:
    analysis = analyze(classifier()).analysis
    outline = blocks(analysis.groups, modules(analysis.groups, analysis.names))
    shown = [group.id for block in outline for row in block.members for group in row]
    assert sorted(shown) == sorted(group.id for group in analysis.groups)


def test_numbers_in_short() -> None:
    assert [ranges(n) for n in ([], [3], [3, 4], [4, 3, 9])] == ["", "3", "3-4", "3-4,9"]
