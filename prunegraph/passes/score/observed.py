"""Observation for scorers: whatever all of them need is gathered in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError
from prunegraph.observe.cache import K
from prunegraph.observe.gradients import Backward, GradientStatistic
from prunegraph.observe.stream import Inputs, Progress, Statistic, observe
from prunegraph.passes.score.base import GRADIENTS, NEEDS, Context, needs_data
from prunegraph.passes.score.differentiate import HOW, differentiate


def observe_for(
    scorers: Iterable[str] | Mapping[str, str],
    groups: Sequence[Group],
    context: Context,
    inputs: Inputs | None,
    *,
    providers: Sequence[str] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    backward: Backward | None = None,
) -> Context:
    """The context with everything observed that these scorers need, in one pass over the data, and one backward pass.

    Args:
        scorers: Their names, each for all groups that it can score; or one a kind.
        groups: What they are to score.
        context: What they are given otherwise.
        inputs: The data, see `observe.stream.prepare`.
        providers: Execution providers of ONNX Runtime; those of the inputs if None.
        cache: See `observe`.
        progress: See `observe`.
        backward: What computes gradients; None if nothing can.

    Raises:
        UsageError: data are needed and none were given, or do not suit a scorer.
        MissingExtra: a scorer needs gradients, and nothing can compute them.
    """
    shares = _shares(scorers, groups)
    if not shares:
        return context
    if inputs is None:
        hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
        raise UsageError(f"the scorer {next(iter(shares))!r} needs data to run the model on", hint=hint)
    wanted: dict[str, Statistic] = {}
    gradients: dict[str, GradientStatistic] = {}
    for name, suited in shares.items():
        wanted |= NEEDS[name](suited, context.of(name), inputs) if name in NEEDS else {}
        gradients |= GRADIENTS[name](suited, context.of(name), inputs) if name in GRADIENTS else {}
    statistics, seen = _distinct(wanted)
    if statistics:
        observe(context.model, inputs, statistics, providers=providers, cache=cache, progress=progress)
    slopes, felt = _distinct(gradients)
    if slopes:
        asking = context.of(next(name for name in shares if name in GRADIENTS))
        felt[HOW] = differentiate(asking, inputs, slopes, backward, cache=cache, progress=progress)
    return replace(context, observations={**context.observations, **seen, **felt})


def _shares(scorers: Iterable[str] | Mapping[str, str], groups: Sequence[Group]) -> dict[str, list[Group]]:
    """By name of a scorer that needs data the groups that it needs them for."""
    if isinstance(scorers, Mapping):
        found = {name: [g for g in groups if scorers.get(g.kind) == name] for name in scorers.values()}
    else:
        found = {name: list(groups) for name in scorers}
    needing = {name: [g for g in each if needs_data(name, g.kind)] for name, each in found.items()}
    return {name: each for name, each in needing.items() if each}


def _distinct(wanted: Mapping[str, K]) -> tuple[list[K], dict[str, Any]]:
    """Everything wanted once, and by name which of it that is."""
    unique = {statistic.key: statistic for statistic in wanted.values()}
    return list(unique.values()), {name: unique[statistic.key] for name, statistic in wanted.items()}
