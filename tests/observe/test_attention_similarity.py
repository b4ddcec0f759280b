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


def half(analyzed: Analyzed, kind: str) -> Selection:
    """The second half of all units of a kind goes."""
    groups = [group for group in analyzed.analysis.groups if group.kind == kind]
    return Selection({g.id: np.broadcast_to(np.arange(g.units) < max(1, g.units // 2), g.shape) for g in groups})


def compared(analyzed: Analyzed, slim: onnx.ModelProto, selection: Selection, inputs: Inputs) -> Preservation:
    return attention_similarity(
        (analyzed.normalized.model, analyzed.analysis), load_and_analyze(slim).original, selection, inputs
    )


@pytest.mark.parametrize("make", [graphs_attention.mha, graphs_attention.gqa, graphs_fused.onnx_attention])
def test_heads_that_stay_attend_as_before_where_nothing_came_before(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    analyzed = load_and_analyze(model)
    kind = next(group.kind for group in analyzed.analysis.groups if group.kind in ("head", "kv_group"))
    selection = half(analyzed, kind)
    inputs = Data(data_for(model)).opened().inputs(analyzed.original)
    similarity = compared(analyzed, apply(analyzed, selection).model, selection, inputs)
    assert similarity.mean == pytest.approx(1, abs=1e-5)
    (site,) = attentions(analyzed.normalized.model, analyzed.analysis)
    assert 0 < len(similarity.heads[0]) < site.heads
    assert np.isnan(similarity.grid()).sum() == similarity.grid().size - len(similarity.heads[0])


def test_fewer_dims_of_queries_and_keys_attend_elsewhere() -> None:
    model = graphs_blocks.transformer_block()
    analyzed = load_and_analyze(model)
    selection = half(analyzed, "qk_dim")
    data = data_for(model)
    slim = apply(analyzed, selection).model
    similarity = compared(analyzed, slim, selection, Data(data).opened().inputs(analyzed.original))
    assert len(similarity.labels) == 2 and 0 < similarity.mean < 0.999
    maps = []
    for each in (analyzed, load_and_analyze(slim)):
        site = attentions(each.normalized.model, each.analysis)[0]
        assert site.probabilities is not None
        with open_session(with_outputs(each.normalized.model, [site.probabilities])) as session:
            maps.append(site.maps({site.probabilities.value: run(session, data, [site.probabilities.value])[0]}))
    a, b = maps
    expected = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(similarity.cosines[0], expected.mean(axis=(0, 2)), atol=1e-5)


def test_padding_does_not_count(tmp_path: Path) -> None:
    """One text after the other, without padding, is the same as all together."""
    analyzed = load_and_analyze(shifting([[0, 1], [0, -1]]))
    selection = half(analyzed, "head")
    slim = apply(analyzed, selection).model
    texts = [{"text": text} for text, _ in SENTENCES]
    both = []
    for size in (1, 8):
        data = Data(texts, word_tokenizer(tmp_path), batch_size=size).opened()
        both.append(compared(analyzed, slim, selection, data.inputs(analyzed.original)))
    for one, other in zip(*(similarity.cosines for similarity in both), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_another_plan_is_refused() -> None:
    model = graphs_attention.mha()
    analyzed = load_and_analyze(model)
    inputs = Data(data_for(model)).opened().inputs(analyzed.original)
    with pytest.raises(UsageError, match="compared"):
        compared(analyzed, model, half(analyzed, "head"), inputs)


def test_the_heat_map_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    similarity = Preservation(("a", "b"), (np.array([0, 2]), np.array([1])), (np.array([0.5, 1.0]), np.array([0.2])))
    heat_map(similarity, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert similarity.layers == [0.75, 0.2] and similarity.to_dict()["layers"][1]["heads"] == [1]
