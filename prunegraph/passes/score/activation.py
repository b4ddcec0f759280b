"""Activation: how strongly a unit's activation reaches what the weights that consume it compute.

`statistic=norm` is Wanda's metric (arXiv 2306.11695) summed over the outputs of a structure, `|x_j| · |W_:,j|`;
`statistic=variance` is FLAP's (arXiv 2312.11983), `Var(x_j) · |W_:,j|^2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import unit_sums
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Floats
from prunegraph.observe.moments import Moments
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.score.base import Context, Scorer, Scores
from prunegraph.passes.score.options import check_choice
from prunegraph.passes.score.weights import weight_reader

OBSERVATION = "activation"
STATISTICS = ("norm", "variance")
KINDS = ("head", "kv_group", "query_head", "v_dim", "ffn", "dense", "channel", "hidden", "inner", "rank")


@dataclass(frozen=True, slots=True)
class Use:
    """An activation, which of its axes holds units, and the weight (by its axis) that sums over them."""

    value: str
    axis: int
    weight: str
    weight_axis: int


def uses(graph: ir.Graph, solution: Solution, group: Group) -> tuple[Use, ...]:
    """Everywhere that a weight sums over the units of a group; see `observe.attention_sites.consumers`."""
    consumers: dict[Use, None] = {}
    for contraction in solution.contractions():
        weight, activation = contraction.weight, contraction.activation
        if weight is None or activation is None:
            continue
        for axis, weight_axis in zip(activation.summed, weight.summed, strict=False):
            if group.dim in solution.leaves(activation.value, axis):
                consumers[Use(activation.value, axis, weight.value, weight_axis)] = None
    return tuple(consumers)


@dataclass(frozen=True)
class Activation(Scorer):
    """How strongly a unit's activation reaches what the weights that consume it compute.

    Attributes:
        statistic: "norm" as Wanda, or "variance" as FLAP.
    """

    name: ClassVar[str] = "activation"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    data_kinds: ClassVar[tuple[str, ...]] = KINDS

    statistic: str = "norm"

    def __post_init__(self) -> None:
        """Check the statistic.

        Raises:
            UsageError: there is no such statistic.
        """
        check_choice(self.name, "statistic", self.statistic, STATISTICS)

    def observes(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
        """Moments of every activation that a weight consumes."""
        graph, solution = context.model.graph, context.analysis.solution
        places = [(use.value, use.axis) for group in groups for use in uses(graph, solution, group)]
        return {OBSERVATION: Moments(places)} if places else {}

    def score(self, group: Group, context: Context) -> Scores:
        """The sum over a unit's slots and over all weights that consume them; 0 where none does."""
        solution = context.analysis.solution
        consumers = uses(context.model.graph, solution, group)
        read = weight_reader(context.model, [use.weight for use in consumers])
        total = np.zeros(group.shape)
        for use in consumers:
            weight = read(use.weight)
            if weight is None:
                continue
            moments: Moments = context.observations[OBSERVATION]
            square = moments.squares[use.value] / moments.count[use.value]
            if self.statistic == "variance":
                square = square - (moments.sums[use.value] / moments.count[use.value]) ** 2
            slots = np.maximum(square, 0) * _energy(weight, use.weight_axis, len(square))
            slots = np.sqrt(slots) if self.statistic == "norm" else slots
            axis = solution.resolve(use.value)[use.axis]
            outer = group.outer if set(group.outer) <= set(axis.dims()) else ()
            # Where rows are told apart along another axis, they have this in common.
            total += unit_sums(_always(slots), (axis,), group.dim, outer, solution.dim_size)
        return total


def _always(sums: Floats) -> Callable[[tuple[int, ...]], Floats]:
    return lambda kept: sums


def _energy(weight: npt.NDArray[Any], axis: int, length: int) -> Floats:
    """`|W_:,j|^2` for every slot j of the consumed axis; a grouped convolution has one part of it for each group."""
    groups = length // weight.shape[axis]
    if groups == 1:
        axes = list(range(weight.ndim))
        return np.asarray(np.einsum(weight, axes, weight, axes, [axis % weight.ndim], dtype=np.float64))
    moved = np.moveaxis(np.asarray(weight, dtype=np.float64), axis, 0)
    parts = moved.reshape(len(moved), groups, -1)
    return np.asarray((parts**2).sum(axis=2).T.reshape(-1))
