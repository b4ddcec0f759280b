"""Random: the baseline that every scorer must beat."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.passes.score.base import Context, Scorer, Scores
from prunegraph.passes.score.magnitude import touching_nodes, unit_energy


@dataclass(frozen=True)
class Random(Scorer):
    """Uniform numbers; 0 for dead units, which no draw may spare.

    Attributes:
        seed: The same seed and group give the same numbers; None: the seed of the call.
    """

    name: ClassVar[str] = "random"

    seed: int | None = None

    def conclude(self, context: Context) -> Mapping[str, Any]:
        """Which nodes have to do with which units, for all groups at once."""
        return touching_nodes(context)

    def score(self, group: Group, context: Context) -> Scores:
        """Numbers in [0, 1), and 0 for what nothing makes or nothing reads."""
        seed = context.seed if self.seed is None else self.seed
        drawn = np.random.default_rng([seed, zlib.crc32(group.id.encode())]).random(group.shape)
        energy = unit_energy(group, context)
        return drawn if energy is None else np.where(energy > 0, drawn, 0.0)
