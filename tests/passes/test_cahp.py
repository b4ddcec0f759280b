"""CAHP: signatures and distances by hand, the knee as published, and heads that complement each other."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

import prunegraph.passes.score.clusters as clustering
from prunegraph.observe.attention_sites import Attention, HeadAxes, ObservedValue
from prunegraph.observe.data import Sample
from prunegraph.observe.text import Batch
from prunegraph.passes.score.clusters import Clusters, cluster, curve, reduce, silhouette
from prunegraph.passes.score.separability import features, jeffries_matusita
from prunegraph.passes.score.signature import FLOOR, SIDE, Signatures, resizer, signatures

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow

CELLS = SIDE * SIDE


# ---- signatures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 16, 31, 32, 33, 64, 100])
def test_the_resize_is_torchs_bilinear(length: int) -> None:
    maps = np.random.default_rng(0).random((2, 3, length, length)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(maps), size=(SIDE, SIDE), mode="bilinear")
    matrix = resizer(length)
    np.testing.assert_allclose(matrix @ maps @ matrix.T, expected.numpy(), atol=1e-6)


def batch_of(mask: list[list[int]], labels: list[int] | None = None) -> Batch:
    real = np.array(mask, dtype=bool)
    samples = tuple(Sample(texts=("x",), label=k) for k in labels or [0] * len(real))
    return Batch({"input_ids": np.zeros(real.shape, np.int64)}, samples, real)


def test_padding_is_left_out_wherever_it_is() -> None:
    """Right, left and in between: the same map comes to the same signature, also where padded rows are NaN."""
    rng = np.random.default_rng(1)
    inner = rng.random((2, 3, 3)).astype(np.float32)
    masks = [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1]]
    maps = np.full((3, 2, 5, 5), np.nan, np.float32)
    for row, mask in enumerate(masks):
        at = np.flatnonzero(mask)
        maps[row][:, at[:, None], at] = inner
    statistic = signatures(maps, batch_of(masks))
    matrix = resizer(3)
    expected = (matrix @ inner @ matrix.T).reshape(2, -1)
    for row in range(3):
        np.testing.assert_allclose(statistic[row], expected, atol=1e-6)


def test_windows_folded_into_the_batch_are_averaged() -> None:
    maps = np.random.default_rng(2).random((4, 2, 6, 6)).astype(np.float32)
    batch = Batch({"image": np.zeros((2, 3))}, (Sample(), Sample()), None)
    matrix = resizer(6)
    each = (matrix @ maps @ matrix.T).reshape(2, 2, 2, CELLS)
    np.testing.assert_allclose(signatures(maps, batch), each.mean(axis=1), atol=1e-6)


def site(heads: int, layer: int = 0, units: np.ndarray | None = None) -> Attention:
    axes = HeadAxes((0,), (1,), (2, 3), heads)
    of = {f"head.{layer}": np.arange(heads) if units is None else units}
    return Attention(
        layer, layer, f"layer {layer}", heads, (), of, ObservedValue(f"p{layer}"), axes, "q", "k", "v", f"c{layer}"
    )


class Shape:
    """What of a group matters here."""

    def __init__(self, name: str, *shape: int) -> None:
        self.id, self.shape = name, shape


def seen_of(maps: np.ndarray, labels: list[int], units: np.ndarray | None = None) -> Signatures:
    """Signatures of maps `[examples, heads, n, n]`, two batches."""
    count = maps.shape[1] if units is None else int(units.max()) + 1
    statistic = Signatures([site(maps.shape[1], units=units)], [Shape("head.0", count)], None, 16)  # type: ignore[list-item]
    for part in (slice(0, 3), slice(3, None)):
        mask = [[1] * maps.shape[-1]] * len(labels[part])
        statistic.update(batch_of(mask, labels[part]), {"p0": maps[part]})
    return statistic


def test_mean_and_variance_by_class() -> None:
    rng = np.random.default_rng(3)
    maps = rng.random((8, 2, 5, 5)).astype(np.float32)
    labels = [2, 0, 0, 2, 2, 0, 0, 1]
    statistic = seen_of(maps, labels)
    flat = signatures(maps, batch_of([[1] * 5] * 8))
    assert statistic.labels == [2, 0, 1] and statistic.counts == [3, 4, 1]
    for k, label in enumerate(statistic.labels):
        of_class = flat[np.array(labels) == label]
        np.testing.assert_allclose(statistic.mean[k], of_class.mean(axis=0), atol=1e-6)
        expected = of_class.var(axis=0, ddof=1) if len(of_class) > 1 else np.full((2, CELLS), FLOOR)
        np.testing.assert_allclose(statistic.variance(k), expected, atol=1e-6)
    again = Signatures(statistic.sites, [Shape("head.0", 2)], None, 16)  # type: ignore[list-item]
    again.restore(statistic.state())
    np.testing.assert_array_equal(features(again), features(statistic))


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
    distance = jeffries_matusita(*(np.array(value) for value in given))
    assert distance == pytest.approx(expected, abs=1e-12)


def test_features_are_pairs_of_classes_in_order() -> None:
    maps = np.random.default_rng(5).random((9, 2, 4, 4)).astype(np.float32)
    statistic = seen_of(maps, [2, 1, 0] * 3)
    columns = features(statistic)
    assert columns.shape == (2, 3 * CELLS)
    k, m = statistic.labels.index(0), statistic.labels.index(2)
    expected = jeffries_matusita(statistic.mean[k], statistic.variance(k), statistic.mean[m], statistic.variance(m))
    np.testing.assert_allclose(columns[:, CELLS : 2 * CELLS], expected, rtol=1e-6)  # (0, 1), (0, 2), (1, 2)


# ---- clusters ------------------------------------------------------------------------------------------------------


def test_the_silhouette_by_hand() -> None:
    """Mean, not nearest, distance to the other medoids; medoids do not count."""
    points = np.array([[0.0, 0], [1, 0], [10, 0], [12, 0], [0, 30]])
    widths = silhouette(points, Clusters(np.array([0, 2, 4]), np.array([0, 0, 1, 1, 2])))
    first = (9 + math.hypot(1, 30)) / 2
    second = (12 + math.hypot(12, 30)) / 2
    assert widths == pytest.approx(((first - 1) / first + (second - 2) / second) / 2)
    assert silhouette(points, Clusters(np.arange(5), np.arange(5))) == 1


def separable(heads: int, seed: int) -> np.ndarray:
    """Heads around as many centres as a sixth of them."""
    rng = np.random.default_rng(seed)
    centres = rng.random((heads // 6, 1024))
    return (centres[rng.integers(len(centres), size=heads)] + 0.15 * rng.normal(size=(heads, 1024))).astype(np.float32)


@pytest.mark.slow
def test_the_degree_decides_how_many_heads_stay() -> None:
    """Published code, simulated: 144 heads come to 63-68, 41-43, 32-35, 24-29 and 20-25 for degree 2 to 6."""
    points = reduce(separable(144, 0), "tsne", 42)
    expected = {2: (63, 68), 3: (41, 43), 4: (32, 35), 5: (24, 29), 6: (20, 25)}
    for degree, (low, high) in expected.items():
        fitted = curve(points, degree, 42)
        assert fitted.found and low <= fitted.knee <= high, degree
    assert fitted.silhouette[0] < fitted.silhouette[20] < fitted.silhouette[-1]  # it rises and levels off


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
        fitted = curve(points, 3, 0)
    assert not fitted.found and "no knee" in caplog.text
    x = (fitted.k - fitted.k[0]) / (fitted.k[-1] - fitted.k[0])
    y = (fitted.fit - fitted.fit.min()) / (fitted.fit.max() - fitted.fit.min())
    assert fitted.knee == fitted.k[(y - x).argmax()]


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
