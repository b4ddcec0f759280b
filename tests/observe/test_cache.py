"""Decoders with a cache: past and present shrink together when the caller allows it, and stay whole otherwise."""

from __future__ import annotations

import onnx
import pytest

from prunegraph import Scope, prune_graph
from prunegraph.errors import NothingToPrune
from tests.graphs.skeleton import load_skeleton

pytestmark = pytest.mark.slow

CACHE = ("past_*", "present_*")


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The static lengths of every input and output."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.output)
    }


@pytest.fixture(scope="module")
def decoder() -> onnx.ModelProto:
    return load_skeleton("llama_cache_dynamo")


@pytest.mark.parametrize(
    ("ratio", "keys", "values"),
    [
        ({"kv_group": 0.5}, (0, 1, 0, 12), (0, 1, 0, 12)),
        ({"v_dim": 0.5}, (0, 2, 0, 12), (0, 2, 0, 6)),
        ({"qk_dim": 0.5}, (0, 2, 0, 6), (0, 2, 0, 12)),
        ({"kv_group": 0.5, "v_dim": 0.25, "qk_dim": 0.5, "query_head": 0.5}, (0, 1, 0, 6), (0, 1, 0, 9)),
    ],
)
def test_past_and_present_shrink_together(
    decoder: onnx.ModelProto, ratio: dict[str, float], keys: tuple[int, ...], values: tuple[int, ...]
) -> None:
    result = prune_graph(decoder, ratio, scope=Scope(allow_io=CACHE))
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3
    shapes_of_slim = shapes(result.model)
    for name, shape in shapes_of_slim.items():
        if "key" in name:
            assert shape == keys, name
        elif "value" in name:
            assert shape == values, name
        else:
            assert shape == shapes(decoder)[name], name


def test_the_cache_stays_whole_unless_allowed(decoder: onnx.ModelProto) -> None:
    result = prune_graph(decoder, 0.5)
    assert shapes(result.model) == shapes(decoder)
    assert {group.kind for group in result.report.groups} == {"query_head", "ffn"}
    with pytest.raises(NothingToPrune, match="kv_group"):
        prune_graph(decoder, {"kv_group": 0.5})
