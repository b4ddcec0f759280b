"""SNP: neurons go where attention scores keep their leading parts, and where weights say the same twice.

Structured Neuron-level Pruning (arXiv 2404.11630).  Dims of queries and keys are judged by what they have to do with
the leading singular parts of the attention scores (figure 2a), value and FFN neurons by the redundancy of the weights
that make them (2c), channels of the residual stream by the mean over all layers that write it (2e).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import unit_sums
from prunegraph.arrays import Floats
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.base import Context, Scorer, Scores
from prunegraph.passes.score.magnitude import Magnitude, touching_nodes, unit_energy
from prunegraph.passes.score.options import check_choice
from prunegraph.passes.score.qk_scores import QkScores, Scored, period, products
from prunegraph.passes.score.redundancy import (
    distances,
    makers,
    redundancy,
    removal_order,
    unit_vectors,
)
from prunegraph.passes.score.weights import weight_values

OBSERVATION = "snp"
KINDS = ("qk_dim", "v_dim", "ffn", "dense", "channel", "hidden")
RESIDUAL = ("average", "sum")
DISTANCES = ("cosine", "euclidean")
STREAMS = ("hidden", "channel")
"""Kinds that several layers write: each is scored by itself.  Elsewhere all that makes a unit is one vector."""


@dataclass(frozen=True)
class Snp(Scorer):
    """Keeps the leading parts of attention scores, and weights that differ; the defaults are the paper's where it says.

    Attributes:
        gamma: How many leading singular parts of the scores count, or "energy": as many as hold `energy` of the sum of
            squares, at most half of the dims (the paper names no number).
        energy: See `gamma`.
        refresh: Whether redundancy is computed anew after every removal, so that of two duplicates one stays.
        residual: Whether the layers that write a stream count by their "average" or their "sum".  Each is divided by
            its own sum first, so that both rank alike within a group.
        distance: How far apart the weights of two neurons are: "cosine" as published, blind to how long they are, or
            "euclidean".
    """

    name: ClassVar[str] = "snp"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    data_kinds: ClassVar[tuple[str, ...]] = ("qk_dim",)
    keeps_basis: ClassVar[bool] = True

    gamma: int | str = "energy"
    energy: float = 0.9
    refresh: bool = False
    residual: str = "average"
    distance: str = "cosine"

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            UsageError: one has a value that it cannot have.
        """
        whole = isinstance(self.gamma, int) and not isinstance(self.gamma, bool)
        if self.gamma != "energy" and not (whole and int(self.gamma) >= 1):
            hint = "give a positive number of singular parts, or energy"
            raise UsageError(f"snp: gamma cannot be {self.gamma!r}", hint=hint)
        if not isinstance(self.energy, (int, float)) or not 0 < self.energy <= 1:
            raise UsageError(f"snp: energy must be in (0, 1], not {self.energy!r}", hint="0.9 is the default")
        if not isinstance(self.refresh, bool):
            raise UsageError(f"snp: refresh cannot be {self.refresh!r}", hint="choose true, false")
        check_choice(self.name, "residual", self.residual, RESIDUAL)
        check_choice(self.name, "distance", self.distance, DISTANCES)

    def observes(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
        """Queries and keys as they are compared.

        Raises:
            PruneGraphError: an op hides them.
        """
        dims = {group.dim for group in groups if group.kind == "qk_dim"}
        sites: list[Scored] = []
        for leaves, label, site in products(context.model, context.analysis):
            if not leaves & dims:
                continue
            if site is None:
                hint = "export the model without attention fusion, or score qk_dim otherwise: scorer={'qk_dim': …}"
                raise PruneGraphError(f"{label} does not give its queries and keys away", hint=hint)
            sites.append(site)
        if not sites:
            return {}
        gamma = self.gamma if isinstance(self.gamma, int) else None
        return {OBSERVATION: QkScores(sites, gamma, self.energy)}

    def conclude(self, context: Context) -> Mapping[str, Any]:
        """Which nodes have to do with which units."""
        return touching_nodes(context)

    def score(self, group: Group, context: Context) -> Scores:
        """By kind: see the module.

        Units of several slots (pairs that a rotation couples) sum their slots, keys that several query heads share sum
        over these heads, and dims that several layers share over the layers.
        """
        if group.kind == "qk_dim":
            return _preserving(group, context)
        scores, energy = _redundant(group, context, self), unit_energy(group, context)
        # What is cut off behind the weights that make it is dead, however these point.
        return scores if energy is None else np.where(energy > 0, scores, -1.0 if self.refresh else 0.0)


def _preserving(group: Group, context: Context) -> Scores:
    statistic: QkScores = context.observations[OBSERVATION]
    solution = context.analysis.solution
    total = np.zeros(group.shape)
    for n, site in enumerate(statistic.sites):
        if group.dim not in site.leaves:
            continue
        scores = statistic.mean(n)

        def summed(kept: tuple[int, ...], scores: Floats = scores) -> Floats:
            return np.asarray(scores.sum(axis=tuple(axis for axis in (0, 1) if axis not in kept)))

        axes: tuple[Axis, Axis] = (site.q.heads, site.q.dims)
        total += unit_sums(summed, axes, group.dim, group.outer, period(solution))
    return total


def _redundant(group: Group, context: Context, options: Snp) -> Scores:
    """Redundancy among all units of the group; what nothing makes (a table alone) goes by magnitude."""
    solution = context.analysis.solution
    made_by = makers(context.model.graph, solution, group)
    weights = weight_values(context.model, [maker.weight for maker in made_by])
    vectors = [unit_vectors(weights[m.weight], m, group, solution) for m in made_by if m.weight in weights]
    if not vectors:
        return Magnitude().score(group, context)
    if group.kind not in STREAMS:
        vectors = [np.concatenate(vectors, axis=1)]
    apart = distances if options.refresh else redundancy
    each = [apart(vector, options.distance) for vector in vectors]
    if not options.refresh:
        scale = 1.0 if options.residual == "sum" else 1.0 / len(each)
        scores = sum(scale * _share(scores) for scores in each) if len(each) > 1 else each[0]
        return np.asarray(scores).reshape(group.shape)
    distance = sum(_share(distance) for distance in each) if len(each) > 1 else each[0]
    return removal_order(np.asarray(distance), int(np.prod(group.rows))).reshape(group.shape)


def _share(scores: Floats) -> Floats:
    """Divided by their sum, which makes layers comparable ("TSS")."""
    total = scores.sum()
    return np.asarray(scores / total if total > 0 else scores)
