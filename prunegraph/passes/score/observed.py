"""Observation for scorers: whatever all of them need is gathered in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunegraph.analysis.groups import Group
from prunegraph.errors import UsageError
from prunegraph.observe.stream import CPU, Inputs, Progress, Statistic, observe
from prunegraph.passes.score.base import NEEDS, Context, scores_kind


def observe_for(
    scorers: Iterable[str],
    groups: Sequence[Group],
    context: Context,
    inputs: Inputs | None,
    *,
    providers: Sequence[str] = CPU,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Context:
    """The context with everything observed that these scorers need, in one pass over the data.

    Args:
        scorers: Their names.
        groups: What they are to score.
        context: What they are given otherwise.
        inputs: The data, see `observe.stream.prepare`.
        providers: Execution providers of ONNX Runtime.
        cache: See `observe`.
        progress: See `observe`.

    Raises:
        UsageError: data are needed and none were given, or do not suit a scorer.
    """
    names = [name for name in dict.fromkeys(scorers) if name in NEEDS]
    if not names:
        return context
    if inputs is None:
        hint = "give texts with the model's tokenizer: data=…, tokenizer=… (--data FILE --tokenizer FOLDER)"
        raise UsageError(f"the scorer {names[0]!r} needs data to run the model on", hint=hint)
    wanted: dict[str, Statistic] = {}
    for name in names:
        suited = [group for group in groups if scores_kind(name, group.kind)]
        wanted |= NEEDS[name](suited, context, inputs)
    unique = list({statistic.key: statistic for statistic in wanted.values()}.values())
    observe(context.model, inputs, unique, providers=providers, cache=cache, progress=progress)
    seen: dict[str, Any] = {name: next(u for u in unique if u.key == s.key) for name, s in wanted.items()}
    return replace(context, observations={**context.observations, **seen})
