"""How well a head tells classes apart, cell by cell of its signature: the Jeffries-Matusita distance (CAHP)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Floats
from prunegraph.passes.score.signature import FLOOR, Signatures


def jeffries_matusita(mean1: Floats, variance1: Floats, mean2: Floats, variance2: Floats) -> Floats:
    """`2 (1 - exp(-B))` in [0, 2), B the Bhattacharyya distance of two normal distributions.

    `B = (m1 - m2)^2 / (4 (s1 + s2)) + ln((s1 + s2) / (2 sqrt(s1 s2))) / 2`, variances at least `FLOOR`.

    >>> float(jeffries_matusita(np.array(1.0), np.array(1.0), np.array(3.0), np.array(1.0)).round(6))  # 2 (1 - e^-0.5)
    0.786939
    """
    s1, s2 = np.maximum(variance1, FLOOR), np.maximum(variance2, FLOOR)
    total = s1 + s2
    distance = (mean1 - mean2) ** 2 / (4 * total) + 0.5 * np.log(total / (2 * np.sqrt(s1 * s2)))
    return np.asarray(2 * (1 - np.exp(-distance)))


def features(classes: Signatures) -> npt.NDArray[np.float32]:
    """`[units, cells * pairs of classes]`: the distance of every cell for every pair of classes, in their order."""
    order = np.argsort(classes.labels)
    pairs = [
        jeffries_matusita(classes.mean[i], classes.variance(i), classes.mean[j], classes.variance(j)).astype(np.float32)
        for i, j in combinations(order, 2)
    ]
    return np.concatenate(pairs, axis=1)
