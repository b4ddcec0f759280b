"""The pass as a whole: look which groups may turn, gather moments, find bases, fold them in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.slots import Keeps
from prunegraph.observe.stream import Inputs, SampleProgress, Statistic, observe
from prunegraph.passes.choose.targets import Kept, Target
from prunegraph.passes.repair.write import put
from prunegraph.passes.rotate.moments import HeadMoments
from prunegraph.passes.rotate.plan import turns_of_plan
from prunegraph.passes.rotate.rotate import Rotation, places, rotated, rotation
from prunegraph.passes.rotate.sites import KINDS, Stays, Turn, sites
from prunegraph.passes.rotate.stream_sites import KIND, StreamTurn, stream_sites
from prunegraph.passes.rotate.turn_stream import StreamMoments, lengthened, stream_rotation, turn_streams
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
        streams: The residual streams among the turned groups.
        lengthened: Gains of norms of the slim model that make up for its narrower streams, see `lengthen`.
    """

    before: ir.Model
    model: ir.Model
    rotation: Rotation
    reasons: Mapping[str, str] = field(default_factory=dict)
    error: float | None = None
    streams: tuple[StreamTurn, ...] = ()
    lengthened: tuple[str, ...] = ()

    def lengthen(self, slim: ir.Model, keeps: Keeps) -> tuple[str, ...]:
        """Give the norms of cut streams the gains that make up for the narrower mean that they divide by, in place.

        Args:
            slim: What Shrink made of the turned model.
            keeps: What stays.

        Returns:
            The initializers that were changed.
        """
        gains = lengthened(slim, self.streams, keeps)
        put(slim, gains)
        return tuple(gains)

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
    kinds: ClassVar[Collection[str]] = (*KINDS, KIND)

    rotation: Rotation

    def score(self, group: Group, context: Context) -> Scores:
        """Known since the basis was found."""
        return self.rotation[group.id].energy


def rotate_groups(
    model: ir.Model,
    analysis: Analysis,
    groups: Mapping[str, int | None],
    inputs: Inputs | None = None,
    *,
    cache: Path | None = None,
    progress: SampleProgress | None = None,
) -> Rotated:
    """Turn dims inside of heads, and residual streams, into the basis in which the last ones contribute least.

    Args:
        model: The normalized model; it is not changed.
        analysis: Its analysis, which holds for the turned model, too.
        groups: The ids of the groups that shall turn, and how many units of each shall stay, which streams must know;
            those that may not stay what they are.
        inputs: Data that say how; the weights alone if None, which is not enough for a stream.
        cache: See `observe`.
        progress: See `observe`.
    """
    every = [*sites(model.graph, analysis, groups), *stream_sites(model.graph, analysis, groups)]
    turns = [site for site in every if isinstance(site, Turn)]
    streams = [site for site in every if isinstance(site, StreamTurn)]
    reasons = {site.group.id: site.reason for site in every if isinstance(site, Stays)}
    widths = {name: width for name, width in groups.items() if width is not None}
    for stream in [each for each in streams if inputs is None or each.group.id not in widths]:
        streams.remove(stream)
        why = "the weights alone do not say which directions it takes" if inputs is None else "no width is asked for"
        reasons[stream.group.id] = why
    if not turns and not streams:
        return Rotated(model, model, {}, reasons)
    moments = None
    stream_moments = StreamMoments(streams)
    if inputs is not None:
        moments = HeadMoments(places(turns))
        gathered: list[Statistic] = [*([moments] if turns else []), *([stream_moments] if streams else [])]
        observe(model, inputs, gathered, cache=cache, progress=progress)
    how = {**rotation(model, turns, moments), **stream_rotation(streams, stream_moments, widths)}
    return Rotated(model, _turned(model, turns, streams, how), how, reasons, streams=tuple(streams))


def _turned(model: ir.Model, turns: Sequence[Turn], streams: Sequence[StreamTurn], how: Rotation) -> ir.Model:
    twin = rotated(model, turns, how)
    turn_streams(twin, streams, how)
    return twin


def rotate_as_planned(model: ir.Model, analysis: Analysis, how: Rotation) -> Rotated:
    """The model as it was before it was cut, as a plan says.

    Raises:
        UsageError: the model has no such group, it may not be turned, or the matrices do not fit it.
    """
    every = [*sites(model.graph, analysis, list(how)), *stream_sites(model.graph, analysis, list(how))]
    planned = turns_of_plan(every, how)
    turns = [turn for turn in planned if isinstance(turn, Turn)]
    streams = [turn for turn in planned if isinstance(turn, StreamTurn)]
    return Rotated(model, _turned(model, turns, streams, how), how, streams=tuple(streams))


def reasons(graph: ir.Graph, analysis: Analysis) -> dict[str, str]:
    """By id of every group that could turn by its kind why it may not, "" where it may."""
    every = [*sites(graph, analysis), *stream_sites(graph, analysis)]
    return {site.group.id: site.reason if isinstance(site, Stays) else "" for site in every}


def groups_to_rotate(
    groups: Iterable[Group], targets: Mapping[str, Target], scorers: KindScorers, rotate: bool | None, data: bool
) -> dict[str, int | None]:
    """The ids of the groups that shall turn, if they may, and how many units of each shall stay.

    Args:
        groups: All groups of the model.
        targets: How much stays of those that get smaller; what is ranked with other groups does not turn.
        scorers: Who would choose otherwise.
        rotate: See `Amount.rotate`.
        data: Whether there are any.
    """
    if rotate is False or (rotate is None and not data):
        return {}
    smaller = {g: target.units for g in groups if isinstance(target := targets.get(g.id), Kept)}
    named = scorers.by_kind
    return {
        group.id: units
        for group, units in smaller.items()
        if group.kind in (*KINDS, KIND) and (rotate or not (group.kind in named or scorers.of_group(group).keeps_basis))
    }
