"""Inputs and outputs that may shrink: caches get smaller with the heads that they hold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.selection import Selection
from prunegraph.passes.normalize import normalize
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.shrink import shrink
from tests.graphs.heads import kv_cache

CACHE = ("past_*", "concat*")


def analysed(allow_io: tuple[str, ...]) -> tuple[ir.Model, ir.Model, Analysis]:
    model = ir.from_proto(kv_cache())
    normal = normalize(model)
    return model, normal.model, analyze_graph(normal.model.graph, normal.facts, allow_io)


@pytest.mark.parametrize(
    ("allow_io", "kinds"),
    [
        ((), {"hidden": 10}),
        (("past_*",), {"hidden": 10}),
        (CACHE, {"hidden": 10, "head": 3, "qk_dim": 4, "v_dim": 4}),
        (("past_value", "concat2"), {"hidden": 10, "v_dim": 4}),
    ],
)
def test_what_is_allowed_is_free(allow_io: tuple[str, ...], kinds: dict[str, int]) -> None:
    """Both ends of a cache must be allowed: a cache that goes in and comes out is one axis."""
    groups = analysed(allow_io)[2].groups
    assert {group.kind: group.units for group in groups} == kinds


def test_caches_shrink_with_their_heads() -> None:
    model, normal, analysis = analysed(CACHE)
    keep = {group.id: np.indices(group.shape)[-1] > 0 for group in analysis.groups}
    keeps = Selection(keep).keeps(analysis.groups)
    slim = shrink(normal, analysis.solution, keeps).model
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(size=(2, 3, 7)).astype(np.float32),
        **{f"past_{name}": rng.normal(size=(2, 3, 6, 4)).astype(np.float32) for name in ("key", "value")},
    }
    result = verify(model, normal, slim, analysis, keeps, feeds=[feeds])
    assert result.ok and result.max_rel_error < 1e-5 and result.moved > 1e-3
    shapes = {value.name: value.shape for value in (*slim.graph.inputs, *slim.graph.outputs)}
    for name in ("past_key", "past_value", "concat1", "concat2"):
        shape = shapes[name]
        assert shape is not None and (shape[1], shape[3]) == (2, 3)
