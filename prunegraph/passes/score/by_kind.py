"""Which scorer scores which kind of group, and the scores of all groups."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.groups import Group
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.passes.score.base import Context, Scorer, ScorerLike, Scorers, Scores
from prunegraph.passes.score.magnitude import Magnitude
from prunegraph.passes.score.registry import SCORERS, as_scorer, make_scorer, options_of

logger = logging.getLogger(__name__)

FALLBACK = Magnitude()
"""Scores what nothing else is for."""


@dataclass(frozen=True, slots=True)
class KindScorers:
    """Scorers by kind.

    Attributes:
        every: One for all kinds that it can score; None where each kind has its own.
        by_kind: One a kind.
        by_group: One for the group of an id, before all others.
    """

    every: Scorer | None = None
    by_kind: Mapping[str, Scorer] = field(default_factory=dict)
    by_group: Mapping[str, Scorer] = field(default_factory=dict)

    def of(self, kind: str) -> Scorer:
        """The scorer of groups of this kind."""
        if self.every is not None:
            return self.every if kind in self.every.kinds else FALLBACK
        return self.by_kind.get(kind, FALLBACK)

    def of_group(self, group: Group) -> Scorer:
        """The scorer of this group."""
        return self.by_group.get(group.id) or self.of(group.kind)

    def shares(self, groups: Iterable[Group]) -> dict[Scorer, list[Group]]:
        """By scorer the groups that it is for."""
        shares: dict[Scorer, list[Group]] = {}
        for group in groups:
            shares.setdefault(self.of_group(group), []).append(group)
        return shares


def resolve_scorers(scorers: Scorers | KindScorers | None, settings: Mapping[str, Any] | None = None) -> KindScorers:
    """Scorers from names, objects or functions, one for all kinds or one a kind.

    Args:
        scorers: See `Scorers`. None asks for nobody: `FALLBACK` scores, unlike a magnitude that is asked for it gives
            way to what `with_stand_ins` knows.
        settings: Options of the scorers that are given by name: `NAME.option` is for the one of that name, a plain
            `option` for all that have it.

    Raises:
        UsageError: there is no such scorer or option, or it cannot score the kind that it is for.
    """
    if isinstance(scorers, KindScorers):
        return scorers
    if scorers is None:
        if not settings:
            return KindScorers()
        scorers = FALLBACK.name
    given: Mapping[str, ScorerLike] = scorers if isinstance(scorers, Mapping) else {"": scorers}
    names = list(dict.fromkeys(scorer for scorer in given.values() if isinstance(scorer, str)))
    own = _own_settings(names, settings or {})
    resolved = {
        kind: make_scorer(scorer, own[scorer]) if isinstance(scorer, str) else as_scorer(scorer)
        for kind, scorer in given.items()
    }
    for kind, scorer in resolved.items():
        if kind and kind not in scorer.kinds:
            able = ", ".join(name for name, cls in sorted(SCORERS.items()) if kind in make_scorer(name).kinds)
            raise UsageError(f"{scorer.name} does not score {kind}", hint=f"choose one of {able} for it")
    return KindScorers(None, resolved) if isinstance(scorers, Mapping) else KindScorers(resolved[""])


def _own_settings(names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name of a scorer its options.

    Raises:
        UsageError: an option is for none of them.
    """
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, value in settings.items():
        prefix, dot, rest = option.partition(".")
        if dot:
            if prefix not in own:
                hint = f"options can be given for {', '.join(own)}" if own else "give the scorer by its name"
                raise UsageError(f"the option {option!r} is for a scorer that is not used", hint=hint)
            own[prefix][rest] = value
            continue
        if not names:
            hint = "give its options to the scorer itself, such as Sap(k=7)"
            raise UsageError(f"the option {option!r} is for a scorer given by name, and none is", hint=hint)
        for name in [name for name in names if option in options_of(name)] or names[:1]:
            own[name].setdefault(option, value)
    return own


def needs_data(scorer: Scorer, kind: str) -> bool:
    """Whether a scorer needs data to score groups of this kind."""
    return kind in scorer.kinds and kind in scorer.data_kinds


def score(groups: Iterable[Group], context: Context, by: Scorer) -> dict[str, Scores]:
    """Score every group.

    Raises:
        UsageError: the scorer returned another shape than the group's.
        PruneGraphError: a score is NaN; the message names the weight that is to blame, if one is.
    """
    scores_of: dict[str, Scores] = {}
    for group in groups:
        scores = np.asarray(by.score(group, context), dtype=np.float64)
        if scores.shape != group.shape:
            raise UsageError(
                f"the scorer {by.name!r} returned {scores.shape} for {group.id} of shape {group.shape}",
                hint="return one number for every unit: an array of the shape group.shape",
            )
        if np.isnan(scores).any():
            raise _not_a_number(by, group, context.model)
        scores_of[group.id] = scores
    return scores_of


def _not_a_number(scorer: Scorer, group: Group, model: ir.Model) -> PruneGraphError:
    """Why a group has no score: a weight that holds NaN, or what the data or the scorer do."""
    leave = f"leave the group whole: exclude, --exclude {group.id}"
    for name in dict.fromkeys(place.name for place in group.places):
        value = model.graph.initializers.get(name)
        tensor = value.const_value if value is not None else None
        if tensor is not None and tensor.dtype.is_floating_point() and np.isnan(tensor.numpy().astype("f4")).any():
            problem = f"{group.id} cannot be scored: its weight {name!r} holds NaN"
            return PruneGraphError(problem, hint=f"mend the weight, or {leave}")
    problem = f"{group.id} cannot be scored: the scorer {scorer.name!r} returned NaN for it"
    hint = f"an array of the shape group.shape without NaN is a score; check the data and the scorer, or {leave}"
    return UsageError(problem, hint=hint)


def score_with(scorers: Scorers | KindScorers, groups: Sequence[Group], context: Context) -> dict[str, Scores]:
    """Score every group by the scorer of its kind, or by `FALLBACK` where there is none.

    Raises:
        UsageError: the one scorer that is given can score none of them.
    """
    scorers = resolve_scorers(scorers)
    if scorers.every is not None:
        own = scorers.by_group
        others = [group for group in groups if group.kind not in scorers.every.kinds and group.id not in own]
        name = scorers.every.name
        if len(others) == len(groups):
            kinds = ", ".join(sorted(scorers.every.kinds))
            raise UsageError(f"{name} scores {kinds}, and none of these is pruned", hint="give a ratio of one of them")
        if others:
            kinds = ", ".join(sorted({group.kind for group in others}))
            logger.info("%s does not score %s: these go by %s", name, kinds, FALLBACK.name)
    scores_of: dict[str, Scores] = {}
    for scorer, members in scorers.shares(groups).items():
        scores_of |= score(members, context.of(scorer), scorer)
    return scores_of
