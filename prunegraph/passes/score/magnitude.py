"""Magnitude: the norm of the weights that make a unit times the norm of those that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.analysis.read_weight import read_initializer
from prunegraph.analysis.slots import unit_sums
from prunegraph.passes.score.base import Context, Scorer, Scores
from prunegraph.passes.score.weight_flow import energy_read, sums_of_squares, touching

_NODES = "nodes by Dim"


@dataclass(frozen=True)
class Magnitude(Scorer):
    """The norm of the weights that make a unit times the norm of those that read it."""

    name: ClassVar[str] = "magnitude"

    def conclude(self, context: Context) -> Mapping[str, Any]:
        """Which nodes have to do with which units, for all groups at once."""
        return touching_nodes(context)

    def score(self, group: Group, context: Context) -> Scores:
        """The root of what `energy_read` says: 0 for a unit that nothing makes or nothing reads.

        Units that no weight reads go by the norm of all weights that they take with them.
        """
        energy = unit_energy(group, context)
        return np.asarray(np.sqrt(_taken(group, context) if energy is None else energy))


def touching_nodes(context: Context) -> Mapping[str, Any]:
    """Which nodes have to do with which units, for all groups at once; a scorer concludes that once."""
    return {_NODES: touching(context.model.graph, context.analysis.solution)}


def unit_energy(group: Group, context: Context) -> Scores | None:
    """What is read of every unit, see `energy_read`: 0 for dead ones, None where no weight reads any."""
    nodes = context.observations.get(_NODES) or touching_nodes(context)[_NODES]
    return energy_read(context.model, context.analysis.solution, group, nodes.get(group.dim, ()))


def _taken(group: Group, context: Context) -> Scores:
    """The sum of squares over every entry of every weight that belongs to a unit."""
    solution = context.analysis.solution
    energy = np.zeros(group.shape)
    for name in dict.fromkeys(place.name for place in group.places):
        squares = sums_of_squares(read_initializer(context.model, name))
        energy += unit_sums(squares, solution.resolve(name), group.dim, group.outer, solution.dim_size)
    return energy
