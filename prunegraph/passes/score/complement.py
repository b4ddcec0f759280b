"""Which heads complement each other: one of every cluster, the one on which the loss hangs most (CAHP)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunegraph.errors import PruneGraphError
from prunegraph.passes.score.base import Scores
from prunegraph.passes.score.clusters import Clusters, Curve, cluster, curve, reduce
from prunegraph.passes.score.head_mask_gradients import GateGradients
from prunegraph.passes.score.michel import by_layer
from prunegraph.passes.score.separability import features
from prunegraph.passes.score.signature import Signatures

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

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
        mine = self.owner == list(self.shapes).index(group)
        return np.asarray((self.salience + 2.0 * self.keep)[mine]).reshape(self.shapes[group])

    def count(self, group: str) -> int:
        """How many units of a group stay; the most of any row, where rows keep equal numbers."""
        mine = self.owner == list(self.shapes).index(group)
        return max(1, int(self.keep[mine].reshape(self.shapes[group]).sum(axis=-1).max()))


def choose(
    seen: Signatures,
    felt: GateGradients,
    *,
    count: int | None,
    degree: int,
    reducer: str,
    seed: int,
    medoids: bool,
) -> Chosen:
    """Cluster heads, find the knee, and choose one head of every cluster.

    Args:
        seen: Signatures.
        felt: Gate gradients of the same groups.
        count: How many heads stay; the knee decides if None.
        degree: Of the polynomial that the knee is found on.
        reducer: See `clusters.reduce`.
        seed: For t-SNE and k-medoids.
        medoids: Whether a cluster's medoid stays, and not its most salient head.

    Raises:
        PruneGraphError: the data show fewer than two classes.
        MissingExtra: a library for clustering is not installed.
    """
    if len(seen.labels) < 2:
        hint = "give data of two classes or more; cahp compares how heads attend in one and in the other"
        raise PruneGraphError("all examples are of one class: there is nothing for heads to tell apart", hint=hint)
    points = reduce(features(seen), reducer, seed)
    found = curve(points, degree, seed) if len(points) >= FEWEST else None
    if found is None:
        logger.warning("%d heads are too few for a silhouette curve: %.0f %% of them stay", len(points), 100 * SHARE)
    wanted = count or (found.knee if found is not None else max(1, round(SHARE * len(points))))
    clusters = cluster(points, min(wanted, len(points)), seed)
    salience = _unit(np.concatenate([felt.by_batch(name).reshape(-1) for name in seen.shapes]))
    owner = owners(seen.shapes)
    keep = _representatives(clusters, salience, medoids)
    before = int(keep.sum())
    keep = _one_each(keep, salience, owner)
    returned = int(keep.sum()) - before
    if count is not None:
        keep = _trimmed(keep, salience, owner, count)
    michel = np.concatenate([by_layer(felt, name).reshape(-1) for name in seen.shapes])
    rival = _trimmed(np.ones_like(keep), michel, owner, int(keep.sum()))
    return Chosen(seen.shapes, points, found, clusters, salience, keep, count, returned, rival)


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
