"""Observation for scorers: whatever all of them need is gathered in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError
from prunegraph.observe.cache import K
from prunegraph.observe.gradients import Backward, GradientStatistic
from prunegraph.observe.stream import Inputs, SampleProgress, Statistic, observe
from prunegraph.passes.score.base import Context, Scorer
from prunegraph.passes.score.by_kind import needs_data
from prunegraph.passes.score.differentiate import HOW, differentiate

Own = tuple[Scorer, str]
"""A scorer and the name that it gives to something observed."""


def observe_for(
    shares: Mapping[Scorer, Sequence[Group]],
    context: Context,
    inputs: Inputs | None,
    *,
    cache: Path | None = None,
    progress: SampleProgress | None = None,
    backward: Backward | None = None,
) -> Context:
    """The context with everything observed that scorers need, in one pass over the data, and one backward pass.

    Args:
        shares: By scorer the groups that it is to score.
        context: What they are given otherwise.
        inputs: The data, see `observe.stream.prepare`.
        cache: See `observe`.
        progress: See `observe`.
        backward: What computes gradients; None if nothing can.

    Raises:
        UsageError: data are needed and none were given, or do not suit a scorer.
        MissingExtra: a scorer needs gradients, and nothing can compute them.
    """
    needing = {scorer: [g for g in groups if needs_data(scorer, g.kind)] for scorer, groups in shares.items()}
    needing = {scorer: groups for scorer, groups in needing.items() if groups}
    if needing and inputs is None:
        hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
        raise UsageError(f"the scorer {next(iter(needing)).name!r} needs data to run the model on", hint=hint)
    observed: dict[Own, Any] = {}
    if inputs is not None:
        observed |= _observed(needing, context, inputs, cache, progress)
        observed |= _differentiated(needing, context, inputs, backward, cache, progress)
    context = replace(context, by_scorer={scorer: _own(observed, scorer) for scorer in shares})
    concluded = {scorer: {**own, **scorer.conclude(context.of(scorer))} for scorer, own in context.by_scorer.items()}
    return replace(context, by_scorer=concluded)


def _observed(
    shares: Mapping[Scorer, Sequence[Group]],
    context: Context,
    inputs: Inputs,
    cache: Path | None,
    progress: SampleProgress | None,
) -> dict[Own, Any]:
    """What is seen in one pass over the data."""
    by_owner: dict[Own, Statistic] = {}
    for scorer, groups in shares.items():
        by_owner |= {(scorer, name): each for name, each in scorer.observes(groups, context, inputs).items()}
    statistics, observed = _distinct(by_owner)
    if statistics:
        observe(context.model, inputs, statistics, cache=cache, progress=progress)
    return observed


def _differentiated(
    shares: Mapping[Scorer, Sequence[Group]],
    context: Context,
    inputs: Inputs,
    backward: Backward | None,
    cache: Path | None,
    progress: SampleProgress | None,
) -> dict[Own, Any]:
    """What is gathered from a backward pass, one for every output whose loss is taken."""
    by_owner: dict[Own, GradientStatistic] = {}
    for scorer, groups in shares.items():
        by_owner |= {(scorer, name): each for name, each in scorer.gradients(groups, context, inputs).items()}
    observed: dict[Own, Any] = {}
    for output in dict.fromkeys(scorer.output for scorer, _ in by_owner):
        statistics, own = _distinct({key: each for key, each in by_owner.items() if key[0].output == output})
        how = differentiate(context, inputs, statistics, backward, output=output, cache=cache, progress=progress)
        observed |= own | {(scorer, HOW): how for scorer, _ in own}
    return observed


def _own(observed: Mapping[Own, Any], scorer: Scorer) -> dict[str, Any]:
    return {name: each for (owner, name), each in observed.items() if owner == scorer}


def _distinct(by_owner: Mapping[Own, K]) -> tuple[list[K], dict[Own, Any]]:
    """Everything wanted once, and by name which of it that is."""
    unique = {statistic.key: statistic for statistic in by_owner.values()}
    return list(unique.values()), {own: unique[statistic.key] for own, statistic in by_owner.items()}
