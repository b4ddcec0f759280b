"""CAHP: signatures and distances by hand, the knee as published, and heads that complement each other."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import prunegraph.passes.score.clusters as clustering
from prunegraph import PruneResult, prune_graph
from prunegraph.cli import app
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.data import Sample
from prunegraph.observe.taps import Attention, HeadAxes, Tap
from prunegraph.observe.text import Batch
from prunegraph.passes.score.cahp import CahpOptions
from prunegraph.passes.score.clusters import Clusters, cluster, curve, reduce, silhouette
from prunegraph.passes.score.complement import Chosen, choose
from prunegraph.passes.score.gate_gradients import GateGradients
from prunegraph.passes.score.separability import features, jeffries_matusita
from prunegraph.passes.score.signature import FLOOR, SIDE, Signatures, resizer, signatures
from prunegraph.pipeline import find
from prunegraph.train.options import TrainOptions
from tests.graphs_text import word_tokenizer
from tests.tiny_classifier import CLASSES, Tiny, texts

torch = pytest.importorskip("torch")

CELLS = SIDE * SIDE


@pytest.fixture(autouse=True)
def _set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PRUNEGRAPH_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- signatures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 16, 31, 32, 33, 64, 100])
def test_the_resize_is_torchs_bilinear(length: int) -> None:
    maps = np.random.default_rng(0).random((2, 3, length, length)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(maps), size=(SIDE, SIDE), mode="bilinear")
    matrix = resizer(length)
    np.testing.assert_allclose(matrix @ maps @ matrix.T, expected.numpy(), atol=1e-6)


def batch_of(mask: list[list[int]], labels: list[int] | None = None) -> Batch:
    seen = np.array(mask, dtype=bool)
    samples = tuple(Sample(texts=("x",), label=k) for k in labels or [0] * len(seen))
    return Batch({"input_ids": np.zeros(seen.shape, np.int64)}, samples, seen)


def test_padding_is_left_out_wherever_it_is() -> None:
    """Right, left and in between: the same map comes to the same signature, also where padded rows are NaN."""
    rng = np.random.default_rng(1)
    inner = rng.random((2, 3, 3)).astype(np.float32)
    masks = [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1]]
    maps = np.full((3, 2, 5, 5), np.nan, np.float32)
    for row, mask in enumerate(masks):
        at = np.flatnonzero(mask)
        maps[row][:, at[:, None], at] = inner
    found = signatures(maps, batch_of(masks))
    matrix = resizer(3)
    expected = (matrix @ inner @ matrix.T).reshape(2, -1)
    for row in range(3):
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_windows_folded_into_the_batch_are_averaged() -> None:
    maps = np.random.default_rng(2).random((4, 2, 6, 6)).astype(np.float32)
    batch = Batch({"image": np.zeros((2, 3))}, (Sample(), Sample()), None)
    matrix = resizer(6)
    each = (matrix @ maps @ matrix.T).reshape(2, 2, 2, CELLS)
    np.testing.assert_allclose(signatures(maps, batch), each.mean(axis=1), atol=1e-6)


def site(heads: int, layer: int = 0, units: np.ndarray | None = None) -> Attention:
    axes = HeadAxes((0,), (1,), (2, 3), heads)
    of = {f"head.{layer}": np.arange(heads) if units is None else units}
    return Attention(layer, layer, f"layer {layer}", heads, (), of, Tap(f"p{layer}"), axes, "q", "k", "v", f"c{layer}")


class Shape:
    """What of a group matters here."""

    def __init__(self, name: str, *shape: int) -> None:
        self.id, self.shape = name, shape


def seen_of(maps: np.ndarray, labels: list[int], units: np.ndarray | None = None) -> Signatures:
    """Signatures of maps `[examples, heads, n, n]`, two batches."""
    count = maps.shape[1] if units is None else int(units.max()) + 1
    found = Signatures([site(maps.shape[1], units=units)], [Shape("head.0", count)], None, 16)  # type: ignore[list-item]
    for part in (slice(0, 3), slice(3, None)):
        mask = [[1] * maps.shape[-1]] * len(labels[part])
        found.update(batch_of(mask, labels[part]), {"p0": maps[part]})
    return found


def test_mean_and_variance_by_class() -> None:
    rng = np.random.default_rng(3)
    maps = rng.random((8, 2, 5, 5)).astype(np.float32)
    labels = [2, 0, 0, 2, 2, 0, 0, 1]
    seen = seen_of(maps, labels)
    flat = signatures(maps, batch_of([[1] * 5] * 8))
    assert seen.labels == [2, 0, 1] and seen.counts == [3, 4, 1]
    for k, label in enumerate(seen.labels):
        mine = flat[np.array(labels) == label]
        np.testing.assert_allclose(seen.mean[k], mine.mean(axis=0), atol=1e-6)
        expected = mine.var(axis=0, ddof=1) if len(mine) > 1 else np.full((2, CELLS), FLOOR)
        np.testing.assert_allclose(seen.variance(k), expected, atol=1e-6)
    again = Signatures(seen.sites, [Shape("head.0", 2)], None, 16)  # type: ignore[list-item]
    again.restore(seen.state())
    np.testing.assert_array_equal(features(again), features(seen))


def test_a_unit_of_several_heads_has_their_mean_map() -> None:
    maps = np.random.default_rng(4).random((6, 4, 3, 3)).astype(np.float32)
    joined = seen_of(maps, [0, 1] * 3, units=np.array([0, 0, 1, 1]))
    means = seen_of(maps.reshape(6, 2, 2, 3, 3).mean(axis=2), [0, 1] * 3)
    np.testing.assert_allclose(joined.mean[0], means.mean[0], atol=1e-6)


JM = {
    "the same": (0.2, 0.1, 0.2, 0.1, 0.0),
    "other means": (1.0, 1.0, 3.0, 1.0, 2 * (1 - math.exp(-0.5))),
    "other variances": (0.0, 1.0, 0.0, 4.0, 2 * (1 - math.sqrt(0.8))),  # B = ln(5 / 4) / 2
    "both": (0.0, 1.0, 2.0, 3.0, 2 * (1 - math.exp(-0.25) * math.sqrt(math.sqrt(3) / 2))),
    "no variance": (0.0, 0.0, 1.0, 0.0, 2.0),  # the floor of 1e-6: B = 125,000
    "below the floor": (0.5, 1e-9, 0.5, 1e-6, 0.0),
}


@pytest.mark.parametrize("case", JM)
def test_jeffries_matusita(case: str) -> None:
    *given, expected = JM[case]
    found = jeffries_matusita(*(np.array(value) for value in given))
    assert found == pytest.approx(expected, abs=1e-12)


def test_features_are_pairs_of_classes_in_order() -> None:
    maps = np.random.default_rng(5).random((9, 2, 4, 4)).astype(np.float32)
    seen = seen_of(maps, [2, 1, 0] * 3)
    found = features(seen)
    assert found.shape == (2, 3 * CELLS)
    k, m = seen.labels.index(0), seen.labels.index(2)
    expected = jeffries_matusita(seen.mean[k], seen.variance(k), seen.mean[m], seen.variance(m))
    np.testing.assert_allclose(found[:, CELLS : 2 * CELLS], expected, rtol=1e-6)  # (0, 1), (0, 2), (1, 2)


# ---- clusters ------------------------------------------------------------------------------------------------------


def test_the_silhouette_by_hand() -> None:
    """Mean, not nearest, distance to the other medoids; medoids do not count."""
    points = np.array([[0.0, 0], [1, 0], [10, 0], [12, 0], [0, 30]])
    found = silhouette(points, Clusters(np.array([0, 2, 4]), np.array([0, 0, 1, 1, 2])))
    first = (9 + math.hypot(1, 30)) / 2
    second = (12 + math.hypot(12, 30)) / 2
    assert found == pytest.approx(((first - 1) / first + (second - 2) / second) / 2)
    assert silhouette(points, Clusters(np.arange(5), np.arange(5))) == 1


def separable(heads: int, seed: int) -> np.ndarray:
    """Heads around as many centres as a sixth of them."""
    rng = np.random.default_rng(seed)
    centres = rng.random((heads // 6, 1024))
    return (centres[rng.integers(len(centres), size=heads)] + 0.15 * rng.normal(size=(heads, 1024))).astype(np.float32)


def test_the_degree_decides_how_many_heads_stay() -> None:
    """Published code, simulated: 144 heads come to 63-68, 41-43, 32-35, 24-29 and 20-25 for degree 2 to 6."""
    points = reduce(separable(144, 0), "tsne", 42)
    expected = {2: (63, 68), 3: (41, 43), 4: (32, 35), 5: (24, 29), 6: (20, 25)}
    for degree, (low, high) in expected.items():
        found = curve(points, degree, 42)
        assert found.found and low <= found.knee <= high, degree
    assert found.silhouette[0] < found.silhouette[20] < found.silhouette[-1]  # it rises and levels off


@pytest.mark.parametrize("reducer", ["pca", "mds"])
def test_other_reducers(reducer: str) -> None:
    points = reduce(separable(40, 1), reducer, 0)
    assert points.shape == (40, 2) and np.array_equal(points, reduce(separable(40, 1), reducer, 0))
    assert 2 <= curve(points, 4, 0).knee < 40


def test_without_a_knee_there_is_a_number_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clustering, "_kneedle", lambda *_: None)
    points = reduce(separable(30, 2), "pca", 0)
    with caplog.at_level(logging.WARNING):
        found = curve(points, 3, 0)
    assert not found.found and "no knee" in caplog.text
    x = (found.k - found.k[0]) / (found.k[-1] - found.k[0])
    y = (found.fit - found.fit.min()) / (found.fit.max() - found.fit.min())
    assert found.knee == found.k[(y - x).argmax()]


def test_all_heads_alike() -> None:
    points = reduce(np.ones((8, 20), np.float32), "tsne", 0)
    assert np.ptp(points, axis=0).max() == 0 and curve(points, 6, 0).silhouette.min() == 1


@pytest.mark.parametrize("reducer", ["tsne", "pca"])
def test_what_is_twice_there_is_one_point(reducer: str) -> None:
    """No two copies stay while a distinct head goes, whatever the number."""
    distinct = separable(12, 3)
    rows = np.concatenate([distinct, distinct[:4] + 1e-6])
    points = reduce(rows, reducer, 42)
    for k in range(2, 13):
        medoids = cluster(points, k, 42).medoids % 12  # copies of the first four stand behind
        medoids = np.where(cluster(points, k, 42).medoids >= 12, medoids, cluster(points, k, 42).medoids)
        assert len(set(medoids.tolist())) == k, k


# ---- the choice ----------------------------------------------------------------------------------------------------


def kept(result: PruneResult) -> list[int]:
    """Heads kept a layer."""
    found = find(Tiny(heads=4, layers=3).onnx()).analysis.groups
    heads = [group for group in found if group.kind == "head"]
    every = {group.id: np.ones(group.units, dtype=bool) for group in heads} | dict(result.selection.keep)
    return [int(every[group.id].sum()) for group in heads]


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """Twelve heads in three layers, and sentences."""
    model = Tiny(heads=4, layers=3).onnx()
    return {
        "model": model,
        "scorer": "cahp",
        "data": texts(96),
        "tokenizer": word_tokenizer(tmp_path),
        "repair": "none",
    }


def test_the_knee_decides_unless_the_caller_does(tiny: dict[str, Any]) -> None:
    """Nothing but heads goes unless it is asked for; a ratio of heads, one for all, and `keep` win over the knee."""
    free = prune_graph(**tiny)
    facts = free.report.to_dict()["scorers"]["cahp"]
    assert sum(kept(free)) == facts["kept"] == facts["knee"] + facts["returned"]
    assert {group.kind for group in free.report.groups} == {"head"} and min(kept(free)) >= 1
    assert sum(kept(prune_graph(**tiny, ratio={"head": 0.5}))) == 6
    both = prune_graph(**tiny, ratio=0.25)
    assert sum(kept(both)) == 9 and {group.kind for group in both.report.groups} >= {"head", "ffn"}
    assert sum(kept(prune_graph(**tiny, scorer_options={"keep": 5}))) == 5
    beside = prune_graph(**tiny, ratio={"ffn": 0.5})
    assert kept(beside) == kept(free) and {group.kind for group in beside.report.groups} == {"head", "ffn"}
    fewer = prune_graph(**tiny, scorer_options={"degree": 2, "reducer": "pca", "representative": "medoid"})
    assert sum(kept(fewer)) != sum(kept(free))


def test_the_report(tiny: dict[str, Any], tmp_path: Path) -> None:
    result = prune_graph(**{**tiny, "data": texts(96, labels=False)})
    facts = result.report.to_dict()["scorers"]["cahp"]
    assert facts["classes_from"] == facts["targets"] == "the model's own predictions"
    assert sum(facts["classes"].values()) == 96 and len(facts["heads"]) == 12
    assert sum(facts["michel_by_group"].values()) == facts["kept"] == sum(head["kept"] for head in facts["heads"])
    files = {path.name: path for path in result.write_report(tmp_path / "report")}
    assert set(files) == {"report.json", "cahp-silhouette.png", "cahp-map.png", "cahp-layers.png"}
    assert all(path.read_bytes()[1:4] == b"PNG" for name, path in files.items() if name.endswith("png"))
    assert json.loads(files["report.json"].read_text())["scorers"]["cahp"]["knee"] == facts["knee"]


@pytest.mark.parametrize("reducer", ["tsne", "pca"])
def test_a_copy_of_a_head_goes_first(tmp_path: Path, reducer: str) -> None:
    """Two layers of four heads, two of each the same: six are distinct, and one of each stays."""
    model = Tiny(heads=4, layers=2, twins=((0, 0, 1), (1, 2, 3))).onnx()
    settings = {"scorer_options": {"keep": 6, "reducer": reducer}, "repair": "none"}
    result = prune_graph(model, scorer="cahp", data=texts(96), tokenizer=word_tokenizer(tmp_path), **settings)
    first, second = (result.selection.keep[name] for name in sorted(result.selection.keep))
    assert first.tolist() in ([True, False, True, True], [False, True, True, True])
    assert second.tolist() in ([True, True, True, False], [True, True, False, True])


def test_query_heads_that_share_keys_go_together(tmp_path: Path) -> None:
    """KV groups are chosen, and their query slots stay unless the caller wants fewer."""
    model = Tiny(heads=8, shared=2, layers=2).onnx()
    given = {"scorer": "cahp", "data": texts(64), "tokenizer": word_tokenizer(tmp_path), "repair": "none"}
    result = prune_graph(model, **given)
    assert {group.kind for group in result.report.groups} == {"kv_group"}
    slots = prune_graph(model, ratio={"query_slot": 0.5}, **{**given, "scorer": {"query_slot": "cahp"}})
    assert {group.kind for group in slots.report.groups} == {"query_slot"}


def by_hand(salience: list[float], owner: list[int], **settings: Any) -> Chosen:
    """Heads on a line, four well apart: 0 and 1, 2 and 3, 4, 5."""
    groups = [Shape(f"head.{k}", owner.count(k)) for k in sorted(set(owner))]
    felt = GateGradients.__new__(GateGradients)
    felt.shapes, felt.count = {g.id: g.shape for g in groups}, 32
    at = np.array(owner)
    felt.batches = {g.id: np.array(salience)[at == k] for k, g in enumerate(groups)}
    felt.examples, felt._waiting = felt.batches, {}
    seen = seen_of(np.random.default_rng(6).random((6, len(owner), 3, 3)).astype(np.float32), [0, 1] * 3)
    seen.shapes = felt.shapes
    return choose(seen, felt, **{"degree": 2, "reducer": "pca", "seed": 0, "medoids": False, "count": None, **settings})


def test_one_head_of_each_cluster_and_one_of_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    line = np.array([[0, 0], [0, 1], [50, 0], [50, 1], [100, 0], [150, 0]], dtype=np.float64)
    monkeypatch.setattr("prunegraph.passes.score.complement.reduce", lambda *_: line)
    salience = [1.0, 2, 9, 8, 3, 5]
    free = by_hand(salience, [0, 0, 0, 1, 2, 2], count=4)
    assert np.flatnonzero(free.keep).tolist() == [2, 3, 4, 5] and free.returned == 1
    # Cluster 0 gives head 1, cluster 1 head 2; layer 1 has lost its only head and gets it back, so the least goes.
    monkeypatch.setattr("prunegraph.passes.score.complement.curve", lambda *_: None)
    knee = by_hand(salience, [0, 0, 0, 0, 1, 1])  # no curve: 0.3 of six
    assert knee.keep.sum() == 2 and knee.keep[:4].any() and knee.keep[4:].any()


def test_batches_make_the_salience() -> None:
    """|mean over 32 examples|, then the mean over batches: signs cancel within one and not between."""
    felt = GateGradients([site(2)], [Shape("head.0", 2)], _Solution())  # type: ignore[list-item, arg-type]
    signs = np.where(np.arange(64) % 2, 1.0, -1.0)
    felt.take([np.stack([signs, np.repeat([1.0, -1.0], 32)], axis=1)[:40]])
    felt.take([np.stack([signs, np.repeat([1.0, -1.0], 32)], axis=1)[40:]])
    assert felt.by_batch("head.0").tolist() == [0, 1] and felt.by_example("head.0").tolist() == [1, 1]


class _Solution:
    """Nothing is resolved where gradients are given as they are."""

    def resolve(self, _: str) -> tuple[()]:
        return ()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one class": ({"data": [{"text": "the dog", "label": 1}] * 8}, "all examples are of one class"),
    "no such option": ({"scorer_options": {"clusters": 3}}, "no option 'clusters'"),
    "no such reducer": ({"scorer_options": {"reducer": "umap"}}, "reducer cannot be"),
    "no number": ({"scorer_options": {"degree": "many"}}, "degree cannot be"),
    "two numbers": ({"scorer_options": {"keep": 3}, "ratio": {"head": 0.5}}, "given by a ratio and"),
    "a label too many": ({"data": [*texts(8), {"text": "the dog", "label": CLASSES}]}, f"label {CLASSES} is no class"),
    "no data": ({"data": None}, "needs data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tiny: dict[str, Any], case: str) -> None:
    changed, what = REFUSED[case]
    with pytest.raises(PruneGraphError, match=what) as error:
        prune_graph(**{**tiny, "repair": None, **changed})
    assert error.value.hint
    assert isinstance(error.value, UsageError) == (case != "one class")


def test_options_from_the_command_line() -> None:
    assert CahpOptions.of({"degree": "4", "keep": "7", "share": "0.5", "reducer": "mds"}) == CahpOptions(
        degree=4, keep=7, share=0.5, reducer="mds"
    )


# ---- end to end ----------------------------------------------------------------------------------------------------


def test_from_a_classifier_to_a_trained_slim_one(tmp_path: Path) -> None:
    """One command; the tokenizer lies beside the model; a trained model is not compared with anything."""
    import onnx

    folder = word_tokenizer(tmp_path)
    onnx.save(Tiny(heads=4, layers=3).onnx(), folder / "model.onnx")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(200)))
    run = CliRunner().invoke
    order = f"prune {folder}/model.onnx -o {folder}/slim.onnx --scorer cahp --data {folder}/train.jsonl"
    done = run(app, f"{order} --finetune --epochs 3 --lr 0.01 --report {folder}/report --json".split())
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["finetune"]["metric"]["after"] > said["finetune"]["metric"]["before"]
    assert said["verify"]["max_rel_error"] < 1e-4 and len(said["files"]) == 6
    onnx.checker.check_model(str(folder / "slim.onnx"))
    assert json.loads((folder / "slim.plan.json").read_text())["trained"]
    compared = run(app, f"verify {folder}/model.onnx {folder}/slim.onnx".split())
    assert compared.exit_code == 1 and "trained after the proof" in compared.stderr


def test_fine_tuning_from_python(tiny: dict[str, Any]) -> None:
    result = prune_graph(**tiny, finetune=TrainOptions(epochs=2, lr=0.01))
    assert result.tuned is not None and len(result.tuned.history) == 3
    assert result.ir_model is result.tuned.ir_model
    with pytest.raises(UsageError, match="needs data"):
        prune_graph(tiny["model"], finetune=TrainOptions())
