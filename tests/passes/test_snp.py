"""SNP against its definition: scores of queries and keys, redundancy, the residual stream; and `activation` by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from prunegraph import Amount, Repair, prune_graph
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.data import Sample
from prunegraph.observe.stream import Data
from prunegraph.observe.text import Batch
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.passes.score import Activation, Context, Snp, make_scorer, observe_for, score_with
from prunegraph.passes.score.qk_scores import QkScores, dim_scores, products
from prunegraph.passes.score.redundancy import distances, makers, redundancy, removal_order
from prunegraph.passes.score.snp import OBSERVATION
from prunegraph.runtime.session import open_session, run
from tests.graphs import attention as graphs_attention
from tests.graphs import fused as graphs_fused
from tests.graphs import heads as graphs_heads
from tests.graphs.builder import Builder, linear
from tests.graphs.skeleton import load_skeleton

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

Array = npt.NDArray[Any]


# ---- queries and keys ----------------------------------------------------------------------------------------------


def by_definition(q: Array, k: Array, gamma: int | None = None, energy: float = 0.9) -> list[float]:
    """Figure 2a with all the N x N matrices that it speaks of."""
    u, s, vt = np.linalg.svd(q @ k.T)
    if gamma is None:
        enough = int(np.argmax(np.cumsum(s**2) >= energy * np.sum(s**2))) + 1
        gamma = min(enough, max(1, q.shape[1] // 2))
    parts = [s[j] * np.outer(u[:, j], vt[j]) for j in range(min(gamma, np.linalg.matrix_rank(q @ k.T)))]
    collected = []
    for i in range(q.shape[1]):
        own = np.outer(q[:, i], k[:, i])
        length = np.linalg.norm(own)
        collected.append(sum(abs((p * own).sum()) / np.linalg.norm(p) / length for p in parts) if length else 0.0)
    return collected


SHAPES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "more positions than dims": (17, 17, 8, {}),
    "fewer positions than dims": (5, 5, 8, {}),
    "keys of another sequence": (9, 14, 6, {}),
    "one leading part": (12, 12, 8, {"gamma": 1}),
    "all of them": (12, 12, 8, {"gamma": 8}),
    "half of the energy": (20, 20, 10, {"energy": 0.5}),
    "one position": (1, 1, 4, {}),
}


@pytest.mark.parametrize("case", SHAPES)
def test_scores_equal_the_definition(case: str) -> None:
    queries, keys, d, settings = SHAPES[case]
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(3, queries, d)), rng.normal(size=(3, keys, d)) * np.linspace(0.1, 2, d)
    scores = dim_scores(q, k, **settings)
    expected = [by_definition(*pair, **settings) for pair in zip(q, k, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-10)


def test_a_dim_without_length_scores_nothing() -> None:
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(2, 9, 4))
    q[:, 2] = 0
    scores = dim_scores(q, k)
    np.testing.assert_allclose(scores, by_definition(q, k), atol=1e-10)
    assert scores[2] == 0 and (np.delete(scores, 2) > 0).all()
    assert dim_scores(np.zeros_like(q), k).tolist() == [0] * 4


def test_what_scores_consist_of_stays() -> None:
    """Two strong dims make the scores, the others are noise: these go first."""
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(2, 30, 8)) * np.where(np.isin(np.arange(8), [2, 5]), 10.0, 0.1)
    assert set(np.argsort(-dim_scores(q, k))[:2]) == {2, 5}


def data_for(model: onnx.ModelProto, folder: Path, count: int = 5, length: int = 7) -> Path:
    """Inputs that any of the graphs below takes."""
    rng = np.random.default_rng(3)
    arrays: dict[str, Array] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else length for d in kind.shape.dim][1:]
        if kind.elem_type == onnx.TensorProto.FLOAT:
            arrays[value.name] = rng.normal(size=[count, *dims]).astype(np.float32)
        elif "position" in value.name:
            arrays[value.name] = np.tile(np.arange(dims[0]), (count, 1))
        else:
            ones = "mask" in value.name
            arrays[value.name] = rng.integers(*((1, 2) if ones else (3, 20)), size=[count, *dims])
    path = folder / "inputs.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


def observed(model: onnx.ModelProto, folder: Path, batch_size: int = 16, **settings: Any) -> tuple[Analyzed, Context]:
    analyzed = load_and_analyze(model)
    context, scorer = Context(analyzed.normalized.model, analyzed.analysis), make_scorer("snp", settings)
    inputs = Data(data_for(model, folder), batch_size=batch_size).inputs(analyzed.original)
    return analyzed, observe_for({scorer: analyzed.analysis.groups}, context, inputs).of(scorer)


def values_of(context: Context, path: Path, names: Sequence[str]) -> list[Array]:
    statistic = context.observations[OBSERVATION]
    with np.load(path) as feeds, open_session(with_outputs(context.model, statistic.observed_values())) as session:
        return [value.astype(np.float64) for value in run(session, dict(feeds), names)]


def spelt_out(q: Array, k: Array) -> tuple[Array, Array]:
    """Operands of a MatMul to `[batch, heads, positions, dims]`, as broadcasting has them."""
    k = np.swapaxes(k, -1, -2)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    both = (np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(lead[0], -1, *x.shape[-2:]) for x in (q, k))
    return next(both), next(both)


def in_the_batch(q: Array, k: Array) -> tuple[Array, Array]:
    q, k = q, np.swapaxes(k, -1, -2)
    return q.reshape(-1, 3, *q.shape[1:]), k.reshape(-1, 3, *k.shape[1:])


def einsum(q: Array, k: Array) -> tuple[Array, Array]:
    return q.transpose(0, 2, 1, 3), k.transpose(0, 2, 1, 3)


def on_one_axis(q: Array, k: Array) -> tuple[Array, Array]:
    q, k = (x.reshape(*x.shape[:2], -1, graphs_fused.D).transpose(0, 2, 1, 3) for x in (q, k))
    return q, np.repeat(k, q.shape[1] // k.shape[1], axis=1)


Read = Callable[[Array, Array], tuple[Array, Array]]
GRAPHS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[Array], list[Array]], Read]] = {
    # how scores by head and slot [heads, dims] become those of units, group by group
    "every head its own": (graphs_attention.mha, lambda s: [s], spelt_out),
    "fused projections": (graphs_attention.packed_3hd, lambda s: [s], spelt_out),
    "keys that query heads share": (graphs_attention.gqa, lambda s: [s.reshape(2, 3, 6).sum(1)], spelt_out),
    "and pairs": (graphs_attention.gqa_rope, lambda s: [s.reshape(6, 2, 3).sum((0, 1))], spelt_out),
    "keys that all share": (graphs_attention.mqa, lambda s: [s.sum(0)], spelt_out),
    "keys broadcast to heads": (graphs_attention.mqa_broadcast, lambda s: [s.sum(0)], spelt_out),
    "halves that turn": (graphs_attention.rope_half, lambda s: [s.reshape(3, 2, 4).sum((0, 1))], spelt_out),
    "neighbours that turn": (graphs_attention.rope_interleaved, lambda s: [s.reshape(3, 4, 2).sum((0, 2))], spelt_out),
    "some turn": (
        graphs_attention.rope_partial,
        lambda s: [s[:, :4].reshape(3, 2, 2).sum((0, 1)), s[:, 4:]],
        spelt_out,
    ),
    "QK-norm": (graphs_heads.norm_of_heads, lambda s: [s.sum(0)], spelt_out),
    "Einsum": (graphs_heads.einsum_attention, lambda s: [s], einsum),
    "a fused op": (graphs_fused.onnx_attention, lambda s: [s], on_one_axis),
    "a fused op, keys shared": (graphs_fused.onnx_attention_gqa, lambda s: [s.reshape(2, 3, -1).sum(1)], on_one_axis),
    "heads in the batch": (graphs_heads.folded_heads, lambda s: [s], in_the_batch),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_scores_of_units_sum_what_goes_together(case: str, tmp_path: Path) -> None:
    make, units, read = GRAPHS[case]
    model = make()
    analyzed, context = observed(model, tmp_path)
    groups = [group for group in analyzed.analysis.groups if group.kind == "qk_dim"]
    [site] = context.observations[OBSERVATION].sites
    values = values_of(context, data_for(model, tmp_path), [site.q.value, site.k.value])
    each = [[by_definition(*head) for head in zip(*pair, strict=True)] for pair in zip(*read(*values), strict=True)]
    scores = score_with("snp", groups, context)
    for group, expected in zip(groups, units(np.mean(each, axis=0)), strict=True):
        np.testing.assert_allclose(scores[group.id], expected, atol=1e-10)


def test_the_pass_is_a_stream(tmp_path: Path) -> None:
    """Neither the size of batches nor the number of samples changes what is kept in memory, or the result."""
    model = graphs_attention.rope_half()
    whole, parts = (observed(model, tmp_path, batch_size=size)[1].observations[OBSERVATION] for size in (16, 2))
    np.testing.assert_allclose(parts.mean(0), whole.mean(0), rtol=1e-5)
    assert {name: array.shape for name, array in whole.state().items()} == {"s0": (3, 8), "n0": (3,)}
    restored = QkScores(whole.sites)
    restored.restore(whole.state())
    assert np.array_equal(restored.mean(0), whole.mean(0))


def test_padding_and_samples_that_fill_up_do_not_count(tmp_path: Path) -> None:
    analyzed, _ = observed(graphs_attention.mha(), tmp_path)
    [(_, _, site)] = products(analyzed.normalized.model, analyzed.analysis)
    assert site is not None
    rng = np.random.default_rng(4)
    q, k = rng.normal(size=(2, 3, 3, 6, 4))
    lengths = [6, 4]  # of two samples; the third row fills up
    mask = np.arange(6) < np.array(lengths)[:, None]
    statistic = QkScores([site])
    feeds = {"x": np.zeros((3, 6, 7), np.float32)}
    statistic.update(Batch(feeds, (Sample(), Sample()), mask), {site.q.value: q, site.k.value: np.swapaxes(k, -1, -2)})
    alone = [[by_definition(q[n, h, :m], k[n, h, :m]) for h in range(3)] for n, m in enumerate(lengths)]
    np.testing.assert_allclose(statistic.mean(0), np.mean(alone, axis=0), atol=1e-10)


# ---- redundancy ----------------------------------------------------------------------------------------------------


def apart(vectors: Array) -> list[float]:
    """Figure 2c."""
    lengths = np.linalg.norm(vectors, axis=1)
    return [
        sum(1 - abs(a @ b) / (m * n) for b, n in zip(vectors, lengths, strict=True))
        for a, m in zip(vectors, lengths, strict=True)
    ]


def test_redundancy_in_matrix_form_is_the_definition() -> None:
    vectors = np.random.default_rng(5).normal(size=(40, 12)) * np.linspace(0.01, 3, 40)[:, None]
    np.testing.assert_allclose(redundancy(vectors), apart(vectors), atol=1e-10)
    np.testing.assert_allclose(distances(vectors).sum(axis=1), apart(vectors), atol=1e-10)
    vectors[3] = 0
    assert redundancy(vectors)[3] == distances(vectors)[3].sum() == 0  # what does nothing goes first


def test_euclidean_distance_sees_how_long_weights_are() -> None:
    vectors = np.random.default_rng(5).normal(size=(30, 6))
    vectors[4] = 2 * vectors[5]
    expected = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    np.testing.assert_allclose(distances(vectors, "euclidean"), expected, atol=1e-7)
    np.testing.assert_allclose(redundancy(vectors, "euclidean"), expected.sum(axis=1), atol=1e-6)
    assert distances(vectors)[4, 5] < 1e-12 < distances(vectors, "euclidean")[4, 5]
    model = graphs_attention.mha()
    cosine, euclidean = (scored(model, distance=distance)[0]["v_dim.0"] for distance in ("cosine", "euclidean"))
    assert not np.array_equal(np.argsort(cosine, axis=-1), np.argsort(euclidean, axis=-1))


def test_of_two_duplicates_one_stays_where_scores_are_refreshed() -> None:
    """Four pairs of duplicates, one of them turned around: without it both of a pair go, before any of another."""
    base = np.random.default_rng(6).normal(size=(4, 20))
    vectors = np.concatenate([base, -2 * base])
    once = np.argsort(redundancy(vectors), kind="stable")
    assert once[0] % 4 == once[1] % 4
    order = removal_order(distances(vectors))
    assert sorted(order) == list(range(8))
    assert sorted(np.flatnonzero(order < 4) % 4) == [0, 1, 2, 3]


def test_rows_take_turns() -> None:
    vectors = np.random.default_rng(7).normal(size=(12, 5))
    order = removal_order(distances(vectors), rows=3).reshape(3, 4)
    assert [sorted(order[row] // 3) for row in range(3)] == [[0, 1, 2, 3]] * 3


def weights_of(context: Context) -> Mapping[str, Array]:
    groups = context.model.graph.initializers
    return {name: v.const_value.numpy() for name, v in groups.items() if v.const_value is not None}


def scored(model: onnx.ModelProto, **settings: Any) -> tuple[dict[str, Array], Mapping[str, Array]]:
    """Scores of everything that needs no data."""
    analyzed = load_and_analyze(model)
    context = Context(analyzed.normalized.model, analyzed.analysis)
    groups = [group for group in analyzed.analysis.groups if group.kind not in ("qk_dim", "head")]
    return score_with(make_scorer("snp", settings), groups, context), weights_of(context)


def test_value_neurons_are_compared_over_all_heads() -> None:
    scores, weights = scored(graphs_attention.mha())
    np.testing.assert_allclose(scores["v_dim.0"].reshape(-1), apart(weights["w_v"].T), rtol=1e-5)
    scores, weights = scored(graphs_heads.einsum_attention())
    values = next(array for name, array in weights.items() if name.startswith("w_v"))
    np.testing.assert_allclose(scores["v_dim.0"].reshape(-1), apart(values.reshape(10, 12).T), rtol=1e-5)


def gated() -> onnx.ModelProto:
    """A residual stream with two gated layers, whose first stands where a weight is transposed by a node."""
    g = Builder("gated")
    h = linear(g, g.input("x", "B", "S", 7), "in", 7, 10)
    for layer in "ab":
        up = g("MatMul", h, g("Transpose", g.weight(f"up{layer}", 12, 10), perm=[1, 0]))
        gate = g("Sigmoid", g("MatMul", h, g.weight(f"gate{layer}", 10, 12)))
        h = g("Add", h, g("MatMul", g("Mul", up, gate), g.weight(f"down{layer}", 12, 10)))
    g.output(linear(g, h, "out", 10, 5), "B", "S", 5)
    return g.model()


def test_a_gated_layer_is_one_vector_of_both_weights() -> None:
    scores, weights = scored(gated())
    both = np.concatenate([weights["upa"], weights["gatea"].T], axis=1)
    np.testing.assert_allclose(scores["ffn.0"], apart(both), rtol=1e-5)


@pytest.mark.parametrize("residual", ["average", "sum"])
def test_every_layer_that_writes_the_stream_has_the_same_say(residual: str) -> None:
    scores, weights = scored(gated(), residual=residual)
    each = [np.array(apart(weights[name].T)) for name in ("w_in", "downa", "downb")]
    shares = [layer / layer.sum() for layer in each]
    np.testing.assert_allclose(scores["hidden.0"], (np.mean if residual == "average" else np.sum)(shares, 0), rtol=1e-5)


WRITERS = {"zoo_deit": 5, "zoo_llama": 5, "zoo_gpt2": 5}
"""Two layers of attention and FFN each, and what makes the stream: patches, or tokens with positions."""


@pytest.mark.parametrize("name", WRITERS)
def test_layers_that_write_the_stream(name: str) -> None:
    analyzed = load_and_analyze(load_skeleton(name))
    hidden = next(group for group in analyzed.analysis.groups if group.kind == "hidden")
    each = makers(analyzed.normalized.model.graph, analyzed.analysis.solution, hidden)
    assert len(each) == WRITERS[name], each


def test_refresh_ranks_by_removal() -> None:
    model = gated()
    for name in ("upa", "gatea"):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor).copy()
        rows = array if name == "upa" else array.T
        rows[6:] = rows[:6]
        tensor.CopyFrom(numpy_helper.from_array(array, name))
    scores, _ = scored(model, refresh="true")
    kept = np.argsort(-scores["ffn.0"])[:6]
    assert sorted(kept % 6) == list(range(6))
    assert sorted(scores["hidden.0"]) == list(range(10))


# ---- activation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["norm", "variance"])
def test_activation_is_what_reaches_the_next_weight(statistic: str, tmp_path: Path) -> None:
    model = gated()
    analyzed = load_and_analyze(model)
    inputs = Data(data_for(model, tmp_path), batch_size=2).inputs(analyzed.original)
    scorer = Activation(statistic)
    context = Context(analyzed.normalized.model, analyzed.analysis)
    context = observe_for({scorer: analyzed.analysis.groups}, context, inputs)
    scores = score_with(scorer, analyzed.analysis.groups, context)
    weights = weights_of(context)
    with np.load(data_for(model, tmp_path)) as feeds:
        h = feeds["x"] @ weights["w_in"] + weights["b_in"]
    expected = np.zeros(10)

    def reach(x: Array, weight: Array) -> Array:
        x = x.reshape(-1, x.shape[-1])
        length = np.linalg.norm(weight, axis=1)
        return np.sqrt((x**2).mean(0)) * length if statistic == "norm" else x.var(0) * length**2

    for n, layer in enumerate("ab"):
        up, gate = h @ weights[f"up{layer}"].T, h @ weights[f"gate{layer}"]
        inner = up / (1 + np.exp(-gate))
        np.testing.assert_allclose(scores[f"ffn.{n}"], reach(inner, weights[f"down{layer}"]), rtol=1e-4)
        expected += reach(h, weights[f"up{layer}"].T) + reach(h, weights[f"gate{layer}"])
        h = h + inner @ weights[f"down{layer}"]
    np.testing.assert_allclose(scores["hidden.0"], expected + reach(h, weights["w_out"]), rtol=1e-4)


# ---- the whole way -------------------------------------------------------------------------------------------------


REAL = {
    "zoo_deit": {"qk_dim": 0.5, "v_dim": 0.25, "ffn": 0.5, "hidden": 0.2},
    "zoo_llama": {"qk_dim": 0.5, "v_dim": 0.25, "ffn": 0.5, "hidden": 0.2},
    "minilm_l3": {"qk_dim": 0.5, "v_dim": 0.25, "ffn": 0.5},
}


@pytest.mark.parametrize("name", REAL)
def test_snp_on_real_exports(name: str, tmp_path: Path) -> None:
    model, ratio = load_skeleton(name), REAL[name]
    data = data_for(model, tmp_path, count=2)
    result = prune_graph(model, Amount(ratio, align=2), scorer="snp", data=data, after=Repair("none"))
    assert result.report.verify is not None and result.report.verify.ok
    assert {group.kind for group in result.report.groups} == set(ratio)


def test_heads_first_and_neurons_of_those_that_stay(tmp_path: Path) -> None:
    """One call: what is chosen of a head that goes does not matter, and others choose as if it were not there."""
    model = load_skeleton("zoo_bert")
    data = data_for(model, tmp_path)
    ratio = {"head": 0.5, "qk_dim": 0.5, "v_dim": 0.5, "ffn": 0.5}
    snp = Snp(gamma=8)
    scorers = {"head": "magnitude", "qk_dim": snp, "v_dim": snp, "ffn": Activation(statistic="variance")}
    result = prune_graph(model, ratio, scorer=scorers, data=data, after=Repair("none"))
    assert result.report.verify is not None and result.report.verify.ok
    assert {(g.kind, g.after / g.before) for g in result.report.groups} == {(kind, 0.5) for kind in ratio}
    alone = prune_graph(model, {"qk_dim": 0.5}, scorer=snp, data=data, after=Repair("none"))
    for name in ("qk_dim.0", "qk_dim.1"):
        assert np.array_equal(result.selection.keep[name], alone.selection.keep[name])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "gamma of zero": ({"gamma": 0}, "gamma"),
    "gamma no number": ({"gamma": "much"}, "gamma"),
    "energy": ({"energy": 1.5}, "energy"),
    "energy no number": ({"energy": "all"}, "energy"),
    "refresh": ({"refresh": "maybe"}, "refresh"),
    "residual": ({"residual": "max"}, "average, sum"),
    "distance": ({"distance": "manhattan"}, "cosine, euclidean"),
    "unknown": ({"rank": 3}, "gamma"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_say_what_they_can_be(case: str) -> None:
    settings, message = BAD[case]
    with pytest.raises(UsageError) as error:
        make_scorer("snp", settings)
    assert message in f"{error.value} {error.value.hint}"


def test_texts_stand_for_options() -> None:
    assert make_scorer("snp", {"gamma": "8", "refresh": "true", "energy": "0.5"}) == Snp(8, 0.5, True)


def test_snp_needs_data_for_queries_and_keys_alone() -> None:
    model = graphs_attention.mha()
    assert prune_graph(model, {"v_dim": 0.5}, scorer="snp").selection.removed
    with pytest.raises(UsageError, match="'snp' needs data"):
        prune_graph(model, {"qk_dim": 0.5}, scorer="snp")


HIDDEN = (graphs_fused.multi_head, graphs_fused.group_query_rotary)


@pytest.mark.parametrize("make", HIDDEN)
def test_an_op_that_hides_its_queries_says_so(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = make()
    with pytest.raises(PruneGraphError, match="does not give its queries and keys away"):
        prune_graph(model, {"qk_dim": 0.5}, scorer="snp", data=data_for(model, tmp_path))
