"""OBS: what is lost with a unit after the others are re-fitted, against least squares by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from prunegraph import prune_graph
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.stream import Data
from prunegraph.passes.repair.sites import RepairSite, sites
from prunegraph.passes.score import Context, Obs, make_scorer, observe_for, score_with
from prunegraph.passes.score.elimination import Reader, eliminate
from prunegraph.passes.score.obs import OBSERVATION
from tests.graphs import attention
from tests.graphs.builder import Builder

Array = npt.NDArray[np.float64]

RIDGE = 1e-3


def reader(seed: int, features: int, outputs: int, owner: list[int]) -> tuple[Reader, Array]:
    """A weight, and the samples that its moments are of; a few of them are nearly sums of others."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, features)) * rng.uniform(0.2, 3, size=features)
    x[:, 1] = x[:, 0] - 0.5 * x[:, 3] + 0.01 * x[:, 1]
    moments = x.T @ x / len(x)
    moments[np.diag_indices(features)] += RIDGE * np.diag(moments).mean()
    return Reader(moments, rng.normal(size=(features, outputs)), np.array(owner)), x


def brute_force(read: Reader, x: Array, gone: list[int]) -> float:
    """The least squared error of `x @ W` from the features that stay, a ridge on the change."""
    stays = ~np.isin(read.owner, gone)
    ridge = np.sqrt(len(x) * RIDGE * np.diag(x.T @ x / len(x)).mean())
    wide = np.concatenate([x, ridge * np.eye(x.shape[1])])
    target = wide @ read.matrix
    fitted = np.linalg.lstsq(wide[:, stays], target, rcond=None)[0] if stays.any() else np.zeros((0, target.shape[1]))
    return float(np.square(target - wide[:, stays] @ fitted).sum() / len(x))


CASES: dict[str, tuple[int, int, list[list[int]]]] = {
    "neurons": (1, 9, [list(range(9))]),
    "blocks of two, some features always stay": (1, 4, [[0, 0, 1, -1, 1, 2, 2, 3, 3, -1]]),
    "blocks of different sizes": (1, 3, [[0, 1, 1, 2, 2, 2, 0, 0]]),
    "rows that lose equally many": (3, 3, [[0, 1, 2, 3, 4, 5, 6, 7, 8]]),
    "two weights": (1, 6, [[0, 1, 2, 3, 4, 5], [5, 4, 3, 3, 1, 0, 2, -1]]),
}


@pytest.mark.parametrize("outputs", [2, 30])
@pytest.mark.parametrize("case", CASES)
def test_errors_are_those_of_least_squares_on_what_stays(case: str, outputs: int) -> None:
    rows, units, owners = CASES[case]
    readers = [reader(k, len(owner), outputs, owner) for k, owner in enumerate(owners)]
    errors = eliminate([read for read, _ in readers], rows, units, 256)
    order = np.argsort(errors, kind="stable").tolist()
    for k in range(1, len(order) + 1):
        expected = sum(brute_force(read, x, order[:k]) for read, x in readers)
        np.testing.assert_allclose(errors[order[k - 1]], expected, rtol=1e-8, atol=1e-8)
    first = [sum(brute_force(read, x, [unit]) for read, x in readers) for unit in range(rows * units)]
    assert order[0] == int(np.argmin(first))
    for k in range(0, len(order), rows):  # in turns
        assert sorted(unit // units for unit in order[k : k + rows]) == list(range(rows))


def test_several_at_once_are_exact_where_a_round_ends() -> None:
    read, x = reader(3, 24, 5, list(range(24)))
    errors = eliminate([read], 1, 24, 6)
    order = np.argsort(errors, kind="stable").tolist()
    for k in range(4, 25, 4):
        np.testing.assert_allclose(errors[order[k - 1]], brute_force(read, x, order[:k]), rtol=1e-8)
    assert (np.diff(errors[order]) >= 0).all()


def test_greedy_choice_is_near_the_best_of_all() -> None:
    read, x = reader(4, 8, 3, list(range(8)))
    errors = eliminate([read], 1, 8, 256)
    gone = np.argsort(errors, kind="stable")[:3].tolist()
    best = min(brute_force(read, x, list(each)) for each in itertools.combinations(range(8), 3))
    assert best <= brute_force(read, x, gone) <= 1.5 * best


def data_for(model: onnx.ModelProto, folder: Path, count: int = 40) -> Path:
    rng = np.random.default_rng(11)
    arrays: dict[str, Any] = {}
    for value in model.graph.input:
        dims = [5 if not d.dim_value else d.dim_value for d in value.type.tensor_type.shape.dim[1:]]
        arrays[value.name] = rng.normal(size=[count, *dims]).astype(np.float32)
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def redundant_mlp() -> onnx.ModelProto:
    """Neurons 0 and 1 are large and say the same; 5 is small and alone."""
    g = Builder("obs_mlp")
    x = g.input("x", "batch", 6)
    g.weight("w_in", 6, 8)
    g.weight("w_out", 8, 5)
    g.initializers["w_in"][:, 1] = g.initializers["w_in"][:, 0] = 3 * g.initializers["w_in"][:, 0]
    g.initializers["w_in"][:, 5] *= 0.5
    g.output(g("MatMul", g("Tanh", g("MatMul", x, "w_in")), "w_out"), "batch", 5)
    return g.model()


def scored(model: onnx.ModelProto, folder: Path, scorer: Obs, kinds: tuple[str, ...]) -> dict[str, Any]:
    analyzed = load_and_analyze(model)
    inputs = Data(data_for(model, folder), batch_size=64).inputs(analyzed.original)
    groups = [group for group in analyzed.analysis.groups if group.kind in kinds]
    context = observe_for({scorer: groups}, Context(analyzed.normalized.model, analyzed.analysis), inputs)
    report = scorer.report(context.of(scorer))
    assert "no labels" in report.lines[0] and not report.facts["labels_read"]
    return score_with(scorer, groups, context)


def test_what_another_neuron_says_goes_first(tmp_path: Path) -> None:
    """One of two duplicates costs nothing; the score is the error of the next weight, whatever the data."""
    model = redundant_mlp()
    scores = scored(model, tmp_path, Obs(ridge=1e-8), ("ffn",))["ffn.0"]
    first, second = sorted(scores[:2])
    assert first == scores.min() and first < 1e-4 * np.sort(scores)[1] and second > first
    weights = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    with np.load(data_for(model, tmp_path)) as data:
        x = np.tanh(data["x"] @ weights["w_in"])
    y = x @ weights["w_out"]
    share = 1 / np.maximum(np.square(y).sum(axis=1), 0.1 * np.median(np.square(y).sum(axis=1)))
    order = np.argsort(scores, kind="stable")
    stays = np.concatenate([x[:, order[3:]], np.ones((len(x), 1))], axis=1) * np.sqrt(share)[:, None]
    target = y * np.sqrt(share)[:, None]
    lost = target - stays @ np.linalg.lstsq(stays, target, rcond=None)[0]
    np.testing.assert_allclose(scores[order[2]], np.square(lost).sum() / len(x), rtol=1e-3)


SHAPES: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "heads and dims of heads": (attention.mha, ("head", "v_dim")),
    "groups of query heads": (attention.gqa, ("kv_group", "query_head", "v_dim")),
    "rows of their own, two layers": (attention.fused_qkv, ("head", "v_dim")),
}


@pytest.mark.parametrize("case", SHAPES)
def test_units_are_the_features_that_go_with_them(case: str, tmp_path: Path) -> None:
    """One unit of every row taken out: the error from the same moments, by features that the selection says stay."""
    make, kinds = SHAPES[case]
    analyzed, scorer = load_and_analyze(make()), Obs()
    groups = [group for group in analyzed.analysis.groups if group.kind in kinds]
    assert {group.kind for group in groups} == set(kinds)
    inputs = Data(data_for(make(), tmp_path)).inputs(analyzed.original)
    context = observe_for({scorer: groups}, Context(analyzed.normalized.model, analyzed.analysis), inputs)
    scores = score_with(scorer, groups, context)
    gram = context.of(scorer).observations[OBSERVATION]
    for group in groups:
        order = np.argsort(scores[group.id].reshape(-1), kind="stable")
        rows = int(np.prod(group.rows))
        keep = np.ones(group.shape, dtype=bool)
        keep.reshape(-1)[order[:rows]] = False
        keeps = Selection({group.id: keep}).keeps(analyzed.analysis.groups)
        lost = 0.0
        for site in sites(analyzed.normalized.model, analyzed.analysis, [group.dim]):
            assert isinstance(site, RepairSite)
            weight = analyzed.normalized.model.graph.initializers[site.weight].const_value.numpy()
            stays = site.kept(analyzed.analysis, keeps, weight.shape)
            sums, counts = gram.sums(site.key)
            moments, count = sums.sum(axis=0), counts.sum()
            mean = moments[-1, :-1] / moments[-1, -1]
            h = (moments[:-1, :-1] - np.outer(mean, mean) * moments[-1, -1]) / count
            h[np.diag_indices_from(h)] += RIDGE * np.diag(h).mean()
            own = h[np.ix_(~stays, ~stays)]
            rest = own - h[np.ix_(~stays, stays)] @ np.linalg.solve(h[np.ix_(stays, stays)], h[np.ix_(stays, ~stays)])
            removed = site.matrix(weight)[~stays]
            lost += float(np.vdot(removed, rest @ removed))
        np.testing.assert_allclose(scores[group.id].reshape(-1)[order[rows - 1]], lost, rtol=1e-8)


def test_channels_of_a_convolution_are_blocks(tmp_path: Path) -> None:
    """A dead channel costs nothing, whatever its kernel."""
    g = Builder("obs_conv")
    x = g.input("x", "batch", 3, 8, 8)
    g.weight("w_in", 6, 3, 3, 3)
    g.weight("w_out", 4, 6, 3, 3)
    g.initializers["w_in"][2] = 0
    g.output(g("Conv", g("Relu", g("Conv", x, "w_in", pads=[1] * 4)), "w_out"), "batch", 4, 6, 6)
    scores = scored(g.model(), tmp_path, Obs(), ("channel",))["channel.0"]
    assert scores.shape == (6,) and scores.argmin() == 2 and scores[2] < 1e-9


def test_in_one_call_with_repair(tmp_path: Path) -> None:
    model = redundant_mlp()
    data = data_for(model, tmp_path)
    result = prune_graph(model, {"ffn": 0.25}, scorer=Obs(ridge=1e-4), data=data)
    keep = result.selection.keep["ffn.0"]
    assert keep.sum() == 6 and keep[:2].sum() == 1
    assert result.report.to_dict()["scorers"]["obs"]["labels_read"] is False


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs data"):
        prune_graph(redundant_mlp(), {"ffn": 0.5}, scorer="obs")
    g = Builder("obs_depthwise")
    x = g.input("x", "batch", 4, 8, 8)
    h = g("Relu", g("Conv", x, g.weight("w_in", 6, 4, 1, 1)))
    g.output(g("ReduceMax", g("Conv", h, g.weight("w_dw", 6, 1, 3, 3), group=6), axes=[1]), "batch", 1, 6, 6)
    model = g.model()
    with pytest.raises(PruneGraphError, match="obs cannot score channel") as error:
        prune_graph(model, {"channel": 0.5}, scorer="obs", data=data_for(model, tmp_path))
    assert "activation" in error.value.hint
    for settings in ({"ridge": 0}, {"rounds": "none"}, {"rounds": 0}):
        with pytest.raises(UsageError, match="obs: "):
            prune_graph(redundant_mlp(), {"ffn": 0.5}, scorer=make_scorer("obs", settings))
