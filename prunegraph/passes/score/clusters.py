"""Clusters of heads: reduced to two dimensions, k-medoids for every k, and the knee of their silhouette (CAHP)."""

from __future__ import annotations

import importlib
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Floats, Index
from prunegraph.extras import needs_extra

logger = logging.getLogger(__name__)


REDUCERS = ("tsne", "pca", "mds")
PERPLEXITY, ITERATIONS = 10.0, 1000
SAME = 1e-3
"""Heads nearer than this share of the median distance are one point: what is twice there is no two clusters."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """One clustering.

    Attributes:
        medoids: By cluster the number of the head in its middle.
        labels: By head the number of its cluster.
    """

    medoids: Index
    labels: Index


@dataclass(frozen=True, slots=True)
class Curve:
    """The Mean Simplified Silhouette by number of clusters, and where its knee is.

    Attributes:
        k: Numbers of clusters.
        silhouette: What was measured for each.
        fit: The polynomial through it.
        knee: The number of clusters there.
        found: Whether Kneedle found it; else it is where the fit is highest over the diagonal.
    """

    k: Index
    silhouette: Floats
    fit: Floats
    knee: int
    found: bool


def reduce(features: npt.NDArray[np.floating[Any]], reducer: str, seed: int) -> Floats:
    """Two coordinates a head; heads that are the same get the same.

    Args:
        features: `[heads, columns]`.
        reducer: "tsne" as CAHP does, perplexity 10 or a third of the heads, or "pca" or "mds" (metric, SMACOF).
        seed: For t-SNE and MDS.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    first, which = _distinct(features)
    rows = np.asarray(features[first], dtype=np.float64)
    if len(rows) < 4 or reducer == "pca":
        points = _principal(rows)
    elif reducer == "mds":
        manifold = _library("sklearn.manifold", "scikit-learn")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            mds = manifold.MDS(n_components=2, random_state=seed, n_init=4, normalized_stress="auto")
            points = mds.fit_transform(rows)
    else:
        manifold = _library("sklearn.manifold", "scikit-learn")
        perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
        tsne = manifold.TSNE(n_components=2, perplexity=perplexity, max_iter=ITERATIONS, random_state=seed)
        points = tsne.fit_transform(rows.astype(np.float32))
    return np.asarray(points, dtype=np.float64)[which]


def cluster(points: Floats, k: int, seed: int) -> Clusters:
    """k-medoids (FasterPAM, Euclidean).

    Args:
        points: `[heads, 2]`.
        k: How many clusters.
        seed: For the first medoids.

    Raises:
        MissingExtra: kmedoids is not installed.
    """
    distances = _distances(points)
    if k == 1:
        return Clusters(np.array([distances.sum(axis=0).argmin()]), np.zeros(len(points), dtype=np.int64))
    if k >= len(points):
        return Clusters(np.arange(len(points)), np.arange(len(points)))
    partition = _library("kmedoids", "kmedoids").fasterpam(distances, k, random_state=seed, n_cpu=1)
    medoids = np.asarray(partition.medoids, dtype=np.int64)
    return Clusters(medoids, distances[:, medoids].argmin(axis=1))


def silhouette(points: Floats, clusters: Clusters) -> float:
    """The Mean Simplified Silhouette: distance to the own medoid against the mean distance to all others.

    Heads that lie on a medoid do not count; 1 if no other is left.
    """
    distances = _distances(points)[:, clusters.medoids]
    every = np.arange(len(points))
    own = distances[every, clusters.labels]
    others = (distances.sum(axis=1) - own) / (len(clusters.medoids) - 1)
    apart = own > 0
    if not apart.any():
        return 1.0
    own, others = own[apart], others[apart]
    return float(np.mean((others - own) / np.maximum(own, others)))


def curve(points: Floats, degree: int, seed: int) -> Curve:
    """The silhouette for every k from 2 to one less than there are heads, and its knee.

    Kneedle (Satopaa et al. 2011, sensitivity 1) on a polynomial through the curve, which rises and levels off.  Where
    it finds no knee, the fit's greatest height over the diagonal is taken, with a warning.

    Args:
        points: `[heads, 2]`, at least four.
        degree: Of the polynomial.
        seed: For the clusterings.

    Raises:
        MissingExtra: kmedoids or kneed is not installed.
    """
    every = np.arange(2, len(points))
    values = np.ones(len(every))
    for row, k in enumerate(every):
        values[row] = silhouette(points, cluster(points, int(k), seed))
        if values[row] == 1:
            break
    degree = min(degree, len(every) - 1)
    fit = np.asarray(np.polyval(np.polyfit(every, values, degree), every), dtype=np.float64)
    height = _unit(fit) - _unit(every)
    knee = _kneedle(every, values, degree)
    if knee is None:
        logger.warning("the silhouette curve has no knee: the number of heads is where it is highest over the diagonal")
    return Curve(every, values, fit, int(every[height.argmax()]) if knee is None else knee, knee is not None)


def _kneedle(every: Index, values: Floats, degree: int) -> int | None:
    locator = _library("kneed", "kneed").KneeLocator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            located = locator(
                every,
                values,
                S=1.0,
                curve="concave",
                direction="increasing",
                interp_method="polynomial",
                polynomial_degree=degree,
            )
        except (ValueError, IndexError, ZeroDivisionError):  # kneed fails where the fit has no extremum
            return None
    return None if located.knee is None else int(located.knee)


def _unit(values: npt.NDArray[Any]) -> Floats:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low if high > low else 1.0), dtype=np.float64)


def _distances(points: npt.NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=-1), dtype=np.float64)


def _distinct(features: npt.NDArray[np.floating[Any]]) -> tuple[Index, Index]:
    """Numbers of heads that are not the same as one before, and by head which of them it is the same as."""
    wide = np.asarray(features, dtype=np.float64)
    products = wide @ wide.T
    squares = np.diag(products)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    limit = SAME * np.median(distances[~np.eye(len(features), dtype=bool)])
    leader = (distances <= limit).argmax(axis=1)
    leader = leader[leader]
    first, which = np.unique(leader, return_inverse=True)
    return first, which


def _principal(rows: Floats) -> Floats:
    """The first two principal components, each with its largest weight positive."""
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    components = np.zeros((len(rows), 2))
    components[:, : min(2, len(s))] = (u * s)[:, :2]
    signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(2)])
    return components * np.where(signs == 0, 1.0, signs)


def _library(module: str, package: str) -> Any:
    with needs_extra("cluster", package):
        return importlib.import_module(module)
