"""Attention-score preservation: the cosine of attention maps, of kept heads and real tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import UsageError
from prunegraph.observe.attention_similarity import Preservation, attention_similarity, heat_map
from prunegraph.observe.attention_sites import attentions
from prunegraph.observe.stream import Data, Inputs
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.result import apply
from prunegraph.runtime.session import open_session, run
from tests.graphs import attention as graphs_attention
from tests.graphs import blocks as graphs_blocks
from tests.graphs import fused as graphs_fused
from tests.graphs.text import SENTENCES, shifting, word_tokenizer

pytestmark = pytest.mark.slow


def data_for(model: onnx.ModelProto, count: int = 6, length: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    dims = {v.name: [d.dim_value or length for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: rng.normal(size=(count, *each[1:])).astype(np.float32) for name, each in dims.items()}


def half(found: Analyzed, kind: str) -> Selection:
    """The second half of all units of a kind goes."""
    groups = [group for group in found.analysis.groups if group.kind == kind]
    return Selection({g.id: np.broadcast_to(np.arange(g.units) < max(1, g.units // 2), g.shape) for g in groups})


def compared(found: Analyzed, slim: onnx.ModelProto, selection: Selection, inputs: Inputs) -> Preservation:
    return attention_similarity(
        (found.normalized.model, found.analysis), load_and_analyze(slim).original, selection, inputs
    )


@pytest.mark.parametrize("make", [graphs_attention.mha, graphs_attention.gqa, graphs_fused.onnx_attention])
def test_heads_that_stay_attend_as_before_where_nothing_came_before(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    found = load_and_analyze(model)
    kind = next(group.kind for group in found.analysis.groups if group.kind in ("head", "kv_group"))
    selection = half(found, kind)
    inputs = Data(data_for(model)).opened().inputs(found.original)
    seen = compared(found, apply(found, selection).model, selection, inputs)
    assert seen.mean == pytest.approx(1, abs=1e-5)
    (site,) = attentions(found.normalized.model, found.analysis)
    assert 0 < len(seen.heads[0]) < site.heads
    assert np.isnan(seen.grid()).sum() == seen.grid().size - len(seen.heads[0])


def test_fewer_dims_of_queries_and_keys_attend_elsewhere() -> None:
    model = graphs_blocks.transformer_block()
    found = load_and_analyze(model)
    selection = half(found, "qk_dim")
    data = data_for(model)
    slim = apply(found, selection).model
    seen = compared(found, slim, selection, Data(data).opened().inputs(found.original))
    assert len(seen.labels) == 2 and 0 < seen.mean < 0.999
    maps = []
    for each in (found, load_and_analyze(slim)):
        site = attentions(each.normalized.model, each.analysis)[0]
        assert site.probabilities is not None
        with open_session(with_outputs(each.normalized.model, [site.probabilities])) as session:
            maps.append(site.maps({site.probabilities.value: run(session, data, [site.probabilities.value])[0]}))
    a, b = maps
    expected = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(seen.cosines[0], expected.mean(axis=(0, 2)), atol=1e-5)


def test_padding_does_not_count(tmp_path: Path) -> None:
    """One text after the other, without padding, is the same as all together."""
    found = load_and_analyze(shifting([[0, 1], [0, -1]]))
    selection = half(found, "head")
    slim = apply(found, selection).model
    texts = [{"text": text} for text, _ in SENTENCES]
    both = []
    for size in (1, 8):
        data = Data(texts, word_tokenizer(tmp_path), batch_size=size).opened()
        both.append(compared(found, slim, selection, data.inputs(found.original)))
    for one, other in zip(*(seen.cosines for seen in both), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_another_plan_is_refused() -> None:
    model = graphs_attention.mha()
    found = load_and_analyze(model)
    inputs = Data(data_for(model)).opened().inputs(found.original)
    with pytest.raises(UsageError, match="compared"):
        compared(found, model, half(found, "head"), inputs)


def test_the_heat_map_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    seen = Preservation(("a", "b"), (np.array([0, 2]), np.array([1])), (np.array([0.5, 1.0]), np.array([0.2])))
    heat_map(seen, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert seen.layers == [0.75, 0.2] and seen.to_dict()["layers"][1]["heads"] == [1]
