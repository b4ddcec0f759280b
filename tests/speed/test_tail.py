"""Harm from what follows one product is that of the slim model, whatever of a group goes, all of it included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import prunegraph as pg
from prunegraph.observe.divergence import divergence
from prunegraph.passes.choose.rank import select
from prunegraph.runtime.feeds import random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.speed.harm import Harm
from prunegraph.speed.tail import site_of
from tests.graphs.blocks import transformer_block, vit


@pytest.mark.parametrize("build", [transformer_block, vit], ids=lambda build: build.__name__)
def test_what_follows_a_product_says_what_the_slim_model_says(build: Callable[[], onnx.ModelProto]) -> None:
    graph = pg.analyze(build())
    specs = input_specs(graph.original.graph)
    sizes = {dim: 48 if k == 0 else 5 for spec in specs for k, dim in enumerate(spec.dims) if isinstance(dim, str)}
    data = pg.Data(dict(random_feeds(specs, sizes, seed=0)))
    harm = Harm(graph, data.opened())
    scores = graph.score("magnitude")
    looked_at = 0
    for group in graph.groups:
        for count in {0, 1, group.units // 2} if group.kind in ("head", "ffn") else {group.units // 2}:
            selection = select([group], scores, {group.id: count})
            value = harm.tails.harm(selection)
            if value is None:
                assert site_of(graph.normalized.model, graph.analysis, group) is None
                continue
            looked_at += 1
            assert value == pytest.approx(divergence(harm.slim(selection), harm.outputs), rel=1e-3, abs=1e-6)
            assert value > 0 or not np.isfinite(value)
    assert looked_at >= 3
