"""Taylor: to first order, what the loss changes by without a unit (after Molchanov et al. 2019, arXiv 1906.10771).

The mean over batches of `|Σ w · dL/dw|` over every entry of every weight that goes with the unit, L a batch's mean
loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from prunegraph.analysis.groups import Group
from prunegraph.analysis.roles import KINDS
from prunegraph.analysis.slots import unit_sums
from prunegraph.analysis.solve import Solution
from prunegraph.observe.gradients import GradientStatistic
from prunegraph.observe.stream import Array, Inputs
from prunegraph.observe.text import Batch
from prunegraph.passes.score.base import Context, Scorer, Scores, ScoringReport
from prunegraph.passes.score.differentiate import HOW, Differentiated

OBSERVATION = "weight gradients"


class WeightGradients:
    """Sums over batches of |Σ weight · gradient| by unit; a `GradientStatistic`.

    Attributes:
        groups: Whose units.
        batches: How many batches were seen.
        totals: By group id the sum, of the group's shape.
    """

    def __init__(self, groups: Sequence[Group], solution: Solution) -> None:
        """Gather for these groups from all data."""
        self.groups, self._solution = tuple(groups), solution
        self._names = {group.id: list(dict.fromkeys(place.name for place in group.places)) for group in groups}
        self.batches = 0
        self.totals = {group.id: np.zeros(group.shape) for group in groups}

    @property
    def key(self) -> str:
        """The groups by their shapes and weights."""
        return f"taylor/{[(group.shape, self._names[group.id]) for group in self.groups]}"

    @property
    def samples(self) -> None:
        """All samples are used."""
        return None

    def activations(self) -> Sequence[str]:
        """No activations: gradients are those of weights."""
        return []

    def weights(self) -> Sequence[str]:
        """Every initializer that gets smaller."""
        return list(dict.fromkeys(name for names in self._names.values() for name in names))

    def update(self, batch: Batch, pairs: Mapping[str, tuple[Array, Array]]) -> None:
        """Add what one batch shows."""
        self.batches += 1
        products = {name: value * gradient for name, (value, gradient) in pairs.items()}
        for group in self.groups:
            each = np.zeros(group.shape)
            for name in self._names[group.id]:
                axes = self._solution.resolve(name)
                each += unit_sums(_Sums(products[name]), axes, group.dim, group.outer, self._solution.dim_size)
            self.totals[group.id] += np.abs(each) / len(batch.samples)

    def merge(self, other: WeightGradients) -> None:
        """Add what another has gathered of the same groups."""
        self.batches += other.batches
        for name, total in other.totals.items():
            self.totals[name] = self.totals[name] + total

    def state(self) -> dict[str, Array]:
        """An array a group, numbered."""
        arrays: dict[str, Array] = {"batches": np.array(self.batches)}
        return arrays | {f"t{k}": self.totals[group.id] for k, group in enumerate(self.groups)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        self.batches = int(state["batches"])
        for k, group in enumerate(self.groups):
            self.totals[group.id] = state[f"t{k}"]


class _Sums:
    """Sums over all axes but some."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __call__(self, kept: tuple[int, ...]) -> npt.NDArray[np.float64]:
        others = tuple(k for k in range(self.array.ndim) if k not in kept)
        return np.asarray(self.array.sum(axis=others, dtype=np.float64))


@dataclass(frozen=True)
class Taylor(Scorer):
    """To first order, what the loss changes by without a unit.

    Attributes:
        output: The logits; the first output if empty.
    """

    name: ClassVar[str] = "taylor"
    data_kinds: ClassVar[tuple[str, ...]] = KINDS
    extras: ClassVar[tuple[str, ...]] = ("torch",)
    comparable: ClassVar[bool] = True

    output: str = ""

    def gradients(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, GradientStatistic]:
        """Gradients of every weight that could get smaller."""
        return {OBSERVATION: WeightGradients(groups, context.analysis.solution)}

    def score(self, group: Group, context: Context) -> Scores:
        """Mean over batches of |Σ weight · dL/dweight| over the unit's slots."""
        sums: WeightGradients = context.observations[OBSERVATION]
        return np.asarray(sums.totals[group.id] / max(sums.batches, 1))

    def report(self, context: Context) -> ScoringReport:
        """Which gradients they were."""
        how: Differentiated = context.observations[HOW]
        sums: WeightGradients = context.observations[OBSERVATION]
        facts = {**how.to_dict(), "batches": sums.batches}
        return ScoringReport((f"taylor: {how.line}, {sums.batches} batches",), facts)
