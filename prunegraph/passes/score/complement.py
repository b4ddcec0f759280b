"""Which heads complement each other: one of every cluster, the one on which the loss hangs most (CAHP)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Floats, Mask
from prunegraph.errors import PruneGraphError
from prunegraph.passes.score.base import Scores
from prunegraph.passes.score.clusters import Clusters, Curve, cluster, curve, reduce
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients
from prunegraph.passes.score.michel import by_layer
from prunegraph.passes.score.separability import features
from prunegraph.passes.score.signature import Signatures

logger = logging.getLogger(__name__)


FEWEST = 4
"""Fewer heads have no curve."""
SHARE = 0.3
"""The share of heads that stays where there is no curve."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What stays of some heads, counted group by group.

    Attributes:
        shapes: By group id, its shape.
        points: `[heads, 2]`: the map of heads.
        curve: Silhouettes by number of clusters; None where the heads are too few for one.
        clusters: The clusters that heads were chosen from.
        salience: By head how much the loss hangs on it, in [0, 1].
        keep: By head whether it stays.
        asked: How many the caller wanted; None where the curve decided.
        returned: How many heads stay only because their group would be left without one.
        rival: By head whether `michel` would keep it, of as many.
    """

    shapes: Mapping[str, tuple[int, ...]]
    points: Floats
    curve: Curve | None
    clusters: Clusters
    salience: Floats
    keep: Mask
    asked: int | None
    returned: int
    rival: Mask

    @property
    def owner(self) -> npt.NDArray[np.int64]:
        """By head the number of its group."""
        return owners(self.shapes)

    def scores(self, group: str) -> Scores:
        """Salience, and two more for what stays: that ranks above all others."""
        of_group = self.owner == list(self.shapes).index(group)
        return np.asarray((self.salience + 2.0 * self.keep)[of_group]).reshape(self.shapes[group])

    def count(self, group: str) -> int:
        """How many units of a group stay; the most of any row, where rows keep equal numbers."""
        of_group = self.owner == list(self.shapes).index(group)
        return max(1, int(self.keep[of_group].reshape(self.shapes[group]).sum(axis=-1).max()))


def choose(
    signatures: Signatures,
    head_gradients: HeadMaskGradients,
    *,
    count: int | None,
    degree: int,
    reducer: str,
    seed: int,
    medoids: bool,
) -> Chosen:
    """Cluster heads, find the knee, and choose one head of every cluster.

    Args:
        signatures: Signatures.
        head_gradients: Gradients by the head mask of the same groups.
        count: How many heads stay; the knee decides if None.
        degree: Of the polynomial that the knee is silhouettes on.
        reducer: See `clusters.reduce`.
        seed: For t-SNE and k-medoids.
        medoids: Whether a cluster's medoid stays, and not its most salient head.

    Raises:
        PruneGraphError: the data show fewer than two classes.
        MissingExtra: a library for clustering is not installed.
    """
    if len(signatures.labels) < 2:
        hint = "give data of two classes or more; cahp compares how heads attend in one and in the other"
        raise PruneGraphError("all examples are of one class: there is nothing for heads to tell apart", hint=hint)
    points = reduce(features(signatures), reducer, seed)
    silhouettes = curve(points, degree, seed) if len(points) >= FEWEST else None
    if silhouettes is None:
        logger.warning("%d heads are too few for a silhouette curve: %.0f %% of them stay", len(points), 100 * SHARE)
    number = count or (silhouettes.knee if silhouettes is not None else max(1, round(SHARE * len(points))))
    clusters = cluster(points, min(number, len(points)), seed)
    salience = _unit(np.concatenate([head_gradients.by_batch(name).reshape(-1) for name in signatures.shapes]))
    owner = owners(signatures.shapes)
    keep = _representatives(clusters, salience, medoids)
    before = int(keep.sum())
    keep = _one_each(keep, salience, owner)
    returned = int(keep.sum()) - before
    if count is not None:
        keep = _trimmed(keep, salience, owner, count)
    michel = np.concatenate([by_layer(head_gradients, name).reshape(-1) for name in signatures.shapes])
    rival = _trimmed(np.ones_like(keep), michel, owner, int(keep.sum()))
    return Chosen(signatures.shapes, points, silhouettes, clusters, salience, keep, count, returned, rival)


def owners(shapes: Mapping[str, tuple[int, ...]]) -> npt.NDArray[np.int64]:
    """By head the number of its group."""
    return np.repeat(np.arange(len(shapes)), [int(np.prod(shape)) for shape in shapes.values()])


def _representatives(clusters: Clusters, salience: Floats, medoids: bool) -> Mask:
    keep = np.zeros(len(salience), dtype=bool)
    if medoids:
        keep[clusters.medoids] = True
        return keep
    for k in np.unique(clusters.labels):
        members = np.flatnonzero(clusters.labels == k)
        keep[members[salience[members].argmax()]] = True
    return keep


def _one_each(keep: Mask, salience: Floats, owner: npt.NDArray[np.int64]) -> Mask:
    """A group that is left without a head gets its most salient one back."""
    kept = keep.copy()
    for group in np.unique(owner):
        members = np.flatnonzero(owner == group)
        if not kept[members].any():
            kept[members[salience[members].argmax()]] = True
    return kept


def _trimmed(keep: Mask, score: Floats, owner: npt.NDArray[np.int64], count: int) -> Mask:
    """At most so many, the lowest scores go first, but never a group's last."""
    kept = keep.copy()
    for head in np.argsort(score, kind="stable"):
        if kept.sum() <= count:
            break
        if kept[head] and kept[owner == owner[head]].sum() > 1:
            kept[head] = False
    return kept


def _unit(values: Floats) -> Floats:
    """To [0, 1]; ones where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)
