"""The pass as a whole: look which groups may turn, gather moments, find bases, fold them in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.observe.stream import Inputs, SampleProgress, observe
from prunegraph.passes.choose.targets import Kept, Target
from prunegraph.passes.rotate.moments import HeadMoments
from prunegraph.passes.rotate.plan import turns_of_plan
from prunegraph.passes.rotate.rotate import Rotation, places, rotated, rotation
from prunegraph.passes.rotate.sites import KINDS, Stays, Turn, sites
from prunegraph.passes.score.base import Context, Scorer, Scores
from prunegraph.passes.score.by_kind import KindScorers


@dataclass(frozen=True, slots=True)
class Rotated:
    """A turned model.

    Attributes:
        before: The normalized model.
        model: The same, turned; what it was where nothing turns.
        rotation: By id of every group that turns, how.
        reasons: By id of every other group that was to turn, why it does not.
        error: Largest difference of any output of the turned model, relative to the output's scale; None until proven.
    """

    before: ir.Model
    model: ir.Model
    rotation: Rotation
    reasons: Mapping[str, str] = field(default_factory=dict)
    error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The part of the JSON of `prunegraph prune --json` that says what was rotated."""
        by = {name: "data" if turned.by_data else "weights" for name, turned in self.rotation.items()}
        return {"groups": by, "stay": dict(self.reasons), "max_rel_error": self.error}

    def scorers(self, others: KindScorers) -> KindScorers:
        """Scorers with one for the turned groups: their dims go by what they contribute."""
        energy = Energy(self.rotation)
        return replace(others, by_group={**others.by_group, **dict.fromkeys(self.rotation, energy)})


@dataclass(frozen=True, eq=False)
class Energy(Scorer):
    """Dims of turned groups by what they contribute: the square of their singular value, as a share of all.

    Attributes:
        rotation: How the groups were turned.
    """

    name: ClassVar[str] = "energy"
    kinds: ClassVar[Collection[str]] = KINDS

    rotation: Rotation

    def score(self, group: Group, context: Context) -> Scores:
        """Known since the basis was found."""
        return self.rotation[group.id].energy


def rotate_groups(
    model: ir.Model,
    analysis: Analysis,
    groups: Sequence[str],
    inputs: Inputs | None = None,
    *,
    cache: Path | None = None,
    progress: SampleProgress | None = None,
) -> Rotated:
    """Turn groups of dims inside of heads into the basis in which the last ones contribute least.

    Args:
        model: The normalized model; it is not changed.
        analysis: Its analysis, which holds for the turned model, too.
        groups: The ids of the groups that shall turn; those that may not stay what they are.
        inputs: Data that say how; the weights alone if None.
        cache: See `observe`.
        progress: See `observe`.
    """
    every = sites(model.graph, analysis, groups)
    turns = [site for site in every if isinstance(site, Turn)]
    reasons = {site.group.id: site.reason for site in every if isinstance(site, Stays)}
    if not turns:
        return Rotated(model, model, {}, reasons)
    moments = None
    if inputs is not None:
        moments = HeadMoments(places(turns))
        observe(model, inputs, [moments], cache=cache, progress=progress)
    how = rotation(model, turns, moments)
    return Rotated(model, rotated(model, turns, how), how, reasons)


def rotate_as_planned(model: ir.Model, analysis: Analysis, how: Rotation) -> Rotated:
    """The model as it was before it was cut, as a plan says.

    Raises:
        UsageError: the model has no such group, it may not be turned, or the matrices do not fit it.
    """
    turns = turns_of_plan(sites(model.graph, analysis, list(how)), how)
    return Rotated(model, rotated(model, turns, how), how)


def groups_to_rotate(
    groups: Iterable[Group], targets: Mapping[str, Target], scorers: KindScorers, rotate: bool | None, data: bool
) -> list[str]:
    """The ids of the groups that shall turn, if they may.

    Args:
        groups: All groups of the model.
        targets: How much stays of those that get smaller; what is ranked with other groups does not turn.
        scorers: Who would choose otherwise.
        rotate: See `Amount.rotate`.
        data: Whether there are any.
    """
    if rotate is False or (rotate is None and not data):
        return []
    smaller = [g for g in groups if g.kind in KINDS and isinstance(targets.get(g.id), Kept)]
    named = scorers.by_kind
    return [g.id for g in smaller if rotate or not (g.kind in named or scorers.of_group(g).keeps_basis)]
