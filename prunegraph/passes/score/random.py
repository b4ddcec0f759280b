"""Random: the baseline that every scorer must beat."""

from __future__ import annotations

import zlib

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.passes.score.base import Context, Scores, scorer


@scorer("random")
def random(group: Group, context: Context) -> Scores:
    """Uniform numbers; the same seed and group give the same ones."""
    return np.random.default_rng([context.seed, zlib.crc32(group.id.encode())]).random(group.shape)
