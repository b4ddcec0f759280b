"""Scores of heads that may not turn: what makes the queries makes up for the dims that go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import prunegraph as pg
from prunegraph.passes.rotate.refit_scores import RIDGE, _errors, _matrices, score_sites
from tests.graphs import attention as graphs_attention
from tests.graphs import heads as graphs_heads

SCOPE = pg.Scope(allow_io=("*",))
KEPT = np.array([[True, False, True, True, False]])


def sides() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(5, 5))
    return rng.normal(size=(400, 5)) @ mix, rng.normal(size=(300, 5)) @ mix


def moments() -> tuple[np.ndarray, np.ndarray]:
    q, k = sides()
    return (q.T @ q)[None], (k.T @ k)[None]


def test_the_matrix_is_the_least_squares_solution_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.passes.rotate.refit_scores.RIDGE", 0.0)
    (q, k), kept = sides(), KEPT[0]
    q, k = q[:40], k[:30]
    (matrix,) = _matrices(((q.T @ q)[None], (k.T @ k)[None]), KEPT)
    pairs = np.einsum("ni,mj->nmij", q[:, kept], k[:, kept]).reshape(len(q) * len(k), -1)
    best = np.linalg.lstsq(pairs, (q @ k.T).reshape(-1), rcond=None)[0]
    assert np.allclose(matrix.reshape(-1), best, atol=1e-8)


def test_errors_from_moments_are_those_of_the_scores() -> None:
    (q, k), kept = sides(), KEPT[0]
    matrices = _matrices(moments(), KEPT)
    errors = _errors(moments(), KEPT, matrices)
    whole = q @ k.T
    for method, by in (("none", np.eye(3)), ("scores", matrices[0])):
        after = q[:, kept] @ by @ k[:, kept].T
        assert np.isclose(errors[method], np.linalg.norm(whole - after) / np.linalg.norm(whole), atol=1e-8)
    assert errors["scores"] < errors["none"] and RIDGE < 1e-3


def test_all_dims_kept_change_nothing() -> None:
    (matrix,) = _matrices(moments(), np.ones((1, 5), dtype=bool))
    assert np.allclose(matrix, np.eye(5), atol=1e-2)


@pytest.mark.parametrize(
    ("make", "sides_found"),
    [
        (graphs_heads.kv_cache, 1),
        (graphs_attention.rope_half, 0),
        (graphs_attention.gqa, 1),
        (graphs_heads.norm_of_heads, 0),
    ],
)
def test_one_side_needs_a_way_back_to_its_weights(make: Callable[[], onnx.ModelProto], sides_found: int) -> None:
    graph = pg.analyze(make(), scope=SCOPE)
    every = score_sites(graph.normalized.model.graph, graph.analysis, [group.id for group in graph.groups])
    assert len(every) == sides_found


def cached(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixes = [np.random.default_rng(7 + k).normal(size=(2, n)) for k, n in enumerate((7, 4, 4))]
    x = rng.normal(size=(count, 4, 2)) @ mixes[0]
    past = [rng.normal(size=(count, 3, 3, 2)) @ mix for mix in mixes[1:]]
    return {
        name: each.astype(np.float32) for name, each in zip(("x", "past_key", "past_value"), (x, *past), strict=True)
    }


def test_cached_keys_stay_and_queries_make_up_for_what_goes() -> None:
    model, amount = graphs_heads.kv_cache(), pg.Amount(ratio={"qk_dim": 0.5})
    result = pg.prune_graph(model, amount, data=cached(60), scope=SCOPE, after=pg.Repair())
    repair = result.report.repair
    assert repair is not None and {o.weight: o.method for o in repair.outcomes} == {"w_q": "scores", "b_q": "scores"}
    assert all(outcome.after < 0.9 * outcome.before for outcome in repair.outcomes)
    assert set(repair.written.changed) == {"w_q", "b_q"} and result.verify().ok


def test_turned_groups_are_left_alone() -> None:
    data = {"x": np.random.default_rng(1).normal(size=(40, 5, 7)).astype(np.float32)}
    result = pg.prune_graph(graphs_attention.mha(), {"qk_dim": 0.5}, data=data)
    assert result.report.repair is not None and "scores" not in result.report.repair.chosen
    chosen = pg.prune_graph(graphs_attention.mha(), pg.Amount({"qk_dim": 0.5}, rotate=False), data=data)
    assert chosen.report.repair is not None and chosen.report.repair.chosen["scores"] == 2
