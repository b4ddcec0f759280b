"""OBS: what a unit says that no other unit can say.

Optimal brain surgery by units: a unit's score is the squared error of the weights that read it after they have been
re-fitted to what stays, so of two units that say the same one goes for nothing (ZipLM, arXiv 2302.04089; OSSCAR, arXiv
2403.12983).  It sees through redundancy, where `activation` looks at each unit alone; `repair` re-fits what it scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import slots
from prunegraph.arrays import Floats, Index
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.stream import Inputs, Statistic
from prunegraph.passes.repair.fit import RIDGE
from prunegraph.passes.repair.repair import MEMORY
from prunegraph.passes.repair.sites import RepairSite, UnrepairedSum, sites
from prunegraph.passes.repair.statistics import FIT, JUDGE, Gram
from prunegraph.passes.score.base import Context, Scorer, Scores, ScoringReport
from prunegraph.passes.score.elimination import Reader, eliminate

OBSERVATION, ERRORS = "obs", "obs errors"
KINDS = ("head", "kv_group", "query_head", "v_dim", "ffn", "dense", "channel", "inner", "rank")


@dataclass(frozen=True)
class Obs(Scorer):
    """What is lost with a unit after everything that reads it is re-fitted to what stays.

    Attributes:
        ridge: Share of the mean variance that is added to every variance, as `repair` does.
        rounds: Where a group has more units than this, several go at once.
    """

    name: ClassVar[str] = "obs"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    data_kinds: ClassVar[tuple[str, ...]] = KINDS

    ridge: float = RIDGE
    rounds: int = 64

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: one has a value that it cannot have.
        """
        if not isinstance(self.ridge, (int, float)) or not 0 < self.ridge <= 1:
            raise UsageError(f"obs: ridge must be in (0, 1], not {self.ridge!r}", hint=f"{RIDGE} is the default")
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise UsageError(f"obs: rounds cannot be {self.rounds!r}", hint="give a whole number, at least 1")

    def observes(self, groups: Sequence[Group], context: Context, inputs: Inputs) -> Mapping[str, Statistic]:
        """Second moments of what every weight reads that reads units, relative to the size of what it makes.

        Raises:
            PruneGraphError: what reads a group is no plain product of a weight, or its moments are too large.
        """
        places = list(sites(context.model, context.analysis, [group.dim for group in groups]))
        readers = [place for place in places if isinstance(place, RepairSite)]
        for group in groups:
            if not any(_owner(site, group, (), context) is not None for site in readers):
                reasons = [place.reason for place in places if isinstance(place, UnrepairedSum)]
                hint = f"give another scorer for it: scorer={{'{group.kind}': 'activation'}}"
                raise PruneGraphError(f"obs cannot score {group.id}: {_why(reasons)}", hint=hint)
        widths = {site.key: _shape(site, context)[0] for site in readers}
        numbers = sum(2 * (width + 1) ** 2 for width in widths.values())
        if numbers * 4 > MEMORY:
            hint = "score fewer groups (--include), or choose activation"
            raise PruneGraphError(f"obs would hold {numbers * 4 / 2**30:.1f} GiB of second moments", hint=hint)
        return {OBSERVATION: Gram(readers, dtype=np.float64 if numbers * 8 <= MEMORY else np.float32)}

    def conclude(self, context: Context) -> Mapping[str, Any]:
        """By group the error that is left once a unit and all cheaper ones are gone."""
        if OBSERVATION not in context.observations:
            return {}
        gram: Gram = context.observations[OBSERVATION]
        groups = [group for group in context.analysis.groups if group.kind in self.kinds]
        places = sites(context.model, context.analysis, [group.dim for group in groups])
        readers = [place for place in places if isinstance(place, RepairSite) and place.key in gram.sites]
        errors: dict[str, Floats] = {}
        for group in groups:
            outer = _outer(group, readers, context)
            read = list(self._readers(group, outer, readers, gram, context))
            if read:
                rows = int(np.prod(group.rows)) if outer else 1
                left = eliminate(read, rows, group.units, self.rounds).reshape(rows, group.units)
                errors[group.id] = np.broadcast_to(left, (int(np.prod(group.rows)), group.units))
        return {ERRORS: errors}

    def _readers(
        self, group: Group, outer: Sequence[int], places: Sequence[RepairSite], gram: Gram, context: Context
    ) -> Iterator[Reader]:
        """The weights that read a group; all uses of one weight are one problem."""
        by_weight: dict[str, list[RepairSite]] = {}
        for site in places:
            by_weight.setdefault(site.weight, []).append(site)
        for name, uses in by_weight.items():
            owner = _owner(uses[0], group, outer, context)
            tensor = context.model.graph.initializers[name].const_value
            if owner is None or tensor is None:
                continue
            sums = [gram.sums(key) for key in dict.fromkeys(site.key for site in uses)]
            moments = np.sum([each[FIT].astype(np.float64) + each[JUDGE] for each, _ in sums], axis=0)
            covariance = _covariance(moments, int(np.sum([counts for _, counts in sums])))
            variance = np.diag(covariance)
            varies = variance > 1e-12 * variance.max(initial=0.0)  # the bias takes up what does not
            covariance = covariance[np.ix_(varies, varies)]
            covariance[np.diag_indices_from(covariance)] += self.ridge * float(variance.mean())
            yield Reader(covariance, uses[0].matrix(tensor.numpy())[varies], owner[varies])

    def score(self, group: Group, context: Context) -> Scores:
        """The error that is left once the unit and all cheaper ones are gone."""
        errors: Mapping[str, Floats] = context.observations[ERRORS]
        return np.asarray(errors[group.id]).reshape(group.shape)

    def report(self, context: Context) -> ScoringReport:
        """That no labels were read, and by group how the error grows."""
        errors: Mapping[str, Floats] = context.observations[ERRORS]
        curves = {name: np.sort(each.max(axis=0)).tolist() for name, each in errors.items()}
        line = f"obs: errors after re-fitting for {len(curves)} groups; no labels were read"
        return ScoringReport((line,), {"labels_read": False, "errors": curves})


def _covariance(moments: Floats, count: int) -> Floats:
    """A position's share of the second moments around the mean, which the bias takes up."""
    mean = moments[-1, :-1] / moments[-1, -1]
    return np.asarray((moments[:-1, :-1] - np.outer(mean, mean) * moments[-1, -1]) / count)


def _owner(site: RepairSite, group: Group, outer: Sequence[int], context: Context) -> Index | None:
    """By feature of a site the number of the unit that it is of, -1 for none; None where it reads no unit."""
    solution = context.analysis.solution
    axis = _feature_axis(site, context)
    if group.dim not in axis.dims():
        return None
    columns = slots(axis, solution.dim_size, {group.dim, *outer}.__contains__)
    owner: Index | None = None
    for dim in (*outer, group.dim):
        slot = np.max([column for other, column in columns if other == dim], axis=0)
        length = solution.dim_size(dim)[0]
        owner = slot if owner is None else np.where((owner < 0) | (slot < 0), -1, owner * length + slot)
    assert owner is not None
    return np.repeat(owner, _shape(site, context)[1])


def _outer(group: Group, places: Sequence[RepairSite], context: Context) -> tuple[int, ...]:
    """The outer Dims of a group; none if a reader tells its rows apart elsewhere: then they have scores in common."""
    axes = [axis for axis in (_feature_axis(site, context) for site in places) if group.dim in axis.dims()]
    return group.outer if all(set(group.outer) <= set(axis.dims()) for axis in axes) else ()


def _feature_axis(site: RepairSite, context: Context) -> Axis:
    return context.analysis.solution.resolve(site.weight)[1 if site.turned else 0]


def _shape(site: RepairSite, context: Context) -> tuple[int, int]:
    """How many features a site has, and how many of them are of one slot."""
    tensor = context.model.graph.initializers[site.weight].const_value
    assert tensor is not None
    shape = tuple(int(n) for n in tensor.shape.numpy())
    kernel = int(np.prod(shape[2:]))
    return shape[1 if site.turned else 0] * kernel, kernel


def _why(reasons: Sequence[str]) -> str:
    return reasons[0] if reasons else "no weight reads it as a plain product"
