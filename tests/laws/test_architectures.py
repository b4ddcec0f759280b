"""Real exports, by both exporters: the groups that the architecture has and no other, and every kind can be removed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph import Amount, prune_graph
from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.selection import Selection
from prunegraph.result import apply
from tests.graphs.selections import part
from tests.graphs.skeleton import analyzed_skeleton

pytestmark = pytest.mark.slow

Expected = dict[tuple[str, int, tuple[int, ...]], int]


def transformer(layers: int, heads: int, head_dim: int, ffn: int, **more: int) -> Expected:
    """Heads, Q/K and V dims (each head its own) and FFN neurons of every layer, and hidden widths by name."""
    groups = {
        ("head", heads, ()): layers,
        ("qk_dim", head_dim, (heads,)): layers,
        ("v_dim", head_dim, (heads,)): layers,
        ("ffn", ffn, ()): layers,
    }
    return groups | {(kind, units, ()): 1 for kind, units in more.items()}


STAGES: Expected = {("channel", width, ()): 3 for width in (64, 128, 256, 512)}  # a stage, and two inside its blocks

GROUPS: dict[str, Expected] = {
    "minilm_l3": transformer(3, 12, 32, 1536),
    "minilm_l6_dynamo": transformer(6, 12, 32, 1536),
    "minilm_l6_legacy": transformer(6, 12, 32, 1536),
    "minilm_l6_cls_dynamo": transformer(6, 12, 32, 1536, hidden=384),
    "minilm_l6_cls_legacy": transformer(6, 12, 32, 1536, hidden=384),
    "minilm_l6_bertcls_dynamo": transformer(6, 12, 32, 1536, hidden=384, dense=384),
    "deit_tiny_dynamo": transformer(12, 3, 64, 768, hidden=192),
    "deit_tiny_legacy": transformer(12, 3, 64, 768, hidden=192),
    "vit_base_dynamo": transformer(12, 12, 64, 3072, hidden=768),
    "resnet18_dynamo": STAGES,
    "resnet18_legacy": STAGES,
}


def census(analysis: Analysis) -> Expected:
    return dict(Counter((g.kind, g.units, g.rows) for g in analysis.groups))


@pytest.mark.parametrize("name", GROUPS)
def test_the_groups_are_those_of_the_architecture(name: str) -> None:
    assert census(analyzed_skeleton(name).analysis) == GROUPS[name]


@pytest.mark.parametrize("name", [name for name in GROUPS if name.startswith("minilm_l") and "cls" not in name])
def test_the_hidden_width_is_pinned_by_the_graph_output_that_holds_it(name: str) -> None:
    pinned = [p for p in analyzed_skeleton(name).analysis.pinned if p.units == 384]
    assert pinned
    assert all(any(pin.why == "graph output" for pin in p.pins) for p in pinned)


CASES = [
    (name, kinds)
    for name, groups in GROUPS.items()
    for kinds in [("",), *((kind,) for kind in dict.fromkeys(kind for kind, _, _ in groups))]
    if name != "vit_base_dynamo" or kinds in [("",)]
]


@pytest.mark.parametrize(("name", "kinds"), CASES)
def test_slim_equals_the_masked_original(name: str, kinds: tuple[str, ...]) -> None:
    """One random selection of every kind by itself, and one of all together."""
    analyzed_model = analyzed_skeleton(name)
    rng = np.random.default_rng(sum(map(ord, name + kinds[0])))
    groups = [g for g in analyzed_model.analysis.groups if kinds == ("",) or g.kind in kinds]
    result = apply(analyzed_model, Selection({g.id: part(g, rng) for g in groups}))
    proof = result.report.verify
    assert proof is not None and proof.ok
    assert proof.moved > 1e-3
    assert proof.exact == all(g.exact for g in groups)
    assert result.report.params[1] < result.report.params[0]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("deit_tiny_dynamo", ("head", "ffn")),
        ("deit_tiny_legacy", ("head", "ffn")),
        ("minilm_l3", ("head", "ffn")),
        ("minilm_l6_cls_legacy", ("head", "ffn")),
        ("resnet18_dynamo", ("channel",)),
    ],
)
def test_magnitude_removes_exactly_the_planted_dead_units(name: str, kinds: tuple[str, ...]) -> None:
    """Zero all weights of some units: they score lowest, go first, and the output does not change."""
    analyzed_model = analyzed_skeleton(name)
    rng = np.random.default_rng(7)
    groups = [g for g in analyzed_model.analysis.groups if g.kind in kinds]
    planted = {g.id: rng.permutation(g.units) < round(g.units / 3) for g in groups}
    dead = Selection({g.id: ~planted[g.id] for g in groups})
    model = analyzed_model.normalized.model.clone()
    _zero(model, analyzed_model.analysis, dead)
    result = prune_graph(model, Amount(dict.fromkeys(kinds, 1 / 3), align=1))
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.vacuous
    for g in groups:
        assert np.array_equal(result.selection.keep[g.id], dead.keep[g.id]), g.id


def _zero(model: ir.Model, analysis: Analysis, dead: Selection) -> None:
    from prunegraph.analysis.slots import kept_positions

    keeps = dead.keeps(analysis.groups)
    for name, value in model.graph.initializers.items():
        if value.const_value is None or name not in analysis.solution.axes:
            continue
        masks = kept_positions(analysis.solution.resolve(name), keeps, analysis.solution.dim_size)
        array = value.const_value.numpy()
        for axis, mask in enumerate(masks):
            if mask is not None:
                array = array * mask.reshape([-1 if k == axis else 1 for k in range(array.ndim)])
        value.const_value = ir.Tensor(np.asarray(array, dtype=value.const_value.numpy().dtype), name=name)
