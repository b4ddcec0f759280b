"""Random: the baseline that every scorer must beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.passes.score.base import Context, Scorer, Scores


@dataclass(frozen=True)
class Random(Scorer):
    """Uniform numbers.

    Attributes:
        seed: The same seed and group give the same numbers; None: the seed of the call.
    """

    name: ClassVar[str] = "random"

    seed: int | None = None

    def score(self, group: Group, context: Context) -> Scores:
        """Numbers in [0, 1)."""
        seed = context.seed if self.seed is None else self.seed
        return np.random.default_rng([seed, zlib.crc32(group.id.encode())]).random(group.shape)
