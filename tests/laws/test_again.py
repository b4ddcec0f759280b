"""A slim model is a model: it can be pruned again, and again."""

from __future__ import annotations

import pytest

from prunegraph import prune_graph
from prunegraph.export.convert import Model
from tests.graphs.skeleton import load_skeleton

pytestmark = pytest.mark.slow

RATIO = {"head": 0.3, "kv_group": 0.3, "ffn": 0.3, "channel": 0.3, "qk_dim": 0.2, "v_dim": 0.2, "hidden": 0.2}


@pytest.mark.parametrize("name", ["zoo_bert", "zoo_llama", "zoo_t5_legacy", "zoo_swin", "zoo_deberta_v2", "zoo_resnet"])
def test_pruned_three_times(name: str) -> None:
    model: Model = load_skeleton(name)
    for _ in range(3):
        result = prune_graph(model, RATIO)
        before, after = result.report.params
        proof = result.report.verify
        assert proof is not None and proof.ok and after < 0.8 * before
        model = result.model
