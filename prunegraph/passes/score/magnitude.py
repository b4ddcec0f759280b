"""Magnitude: the Euclidean norm of all weights that a unit takes with it."""

from __future__ import annotations

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.analysis.sizes import unit_sums
from prunegraph.passes.score.base import Context, Scores, scorer


@scorer("magnitude")
def magnitude(group: Group, context: Context) -> Scores:
    """`sqrt(Σ w²)` over every entry of every weight that belongs to the unit."""
    solution = context.analysis.solution
    total = np.zeros(group.shape)
    for name in dict.fromkeys(place.name for place in group.places):
        tensor = context.model.graph.initializers[name].const_value
        assert tensor is not None
        energy = np.square(tensor.numpy().astype(np.float64))
        total += unit_sums(energy, solution.resolve(name), group.dim, group.outer, solution.dim_size)
    return np.asarray(np.sqrt(total))
