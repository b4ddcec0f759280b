"""The fastest plan within a largest loss: the metric on the data says how much may go."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from prunegraph.errors import UsageError
from prunegraph.observe.evaluation import METRICS, evaluate_models
from prunegraph.observe.stream import Inputs
from prunegraph.report import Drop

TRIALS = 8
"""Plans that are judged: the share of the time that is saved is found to 1/2⁸ of what can be saved."""


def judge_drop(original: ir.Model, slim: ir.Model, inputs: Inputs, metric: str, limit: float) -> Drop:
    """How much worse a slim model is.

    Args:
        original: What it is compared with.
        slim: The re-fitted slim model.
        inputs: Examples for both.
        metric: See `evaluate_models`.
        limit: Percent that are allowed.

    Raises:
        UsageError: there is no such metric, or the data have no labels for it.
    """
    result = evaluate_models({"original": original, "slim": slim}, inputs, metric)
    whole, small = (score.value for score in result.scores)
    return Drop(result.metric, limit, percent_lost(result.metric, whole, small), (whole, small), result.examples)


def percent_lost(metric: str, whole: float, small: float) -> float:
    """Points of what lies in [0, 1]; percent of the original's perplexity, or of the value of a function.

    >>> percent_lost("accuracy", 0.9, 0.88), percent_lost("perplexity", 20.0, 21.0), percent_lost("m:f", 50.0, 49.0)
    (2.0, 5.0, 2.0)
    """
    if metric == "perplexity":
        return round(100 * (small / whole - 1), 6)
    scale = 1.0 if metric in METRICS else abs(whole)
    return round(100 * (whole - small) / scale, 6) if scale else 0.0


def largest_removal(
    judged: Callable[[float], Drop],
    limit: float,
    most: float,
    progress: Callable[[int], None] | None = None,
    *,
    least: float = 0.0,
) -> tuple[float, Drop]:
    """The largest removal that loses no more than the limit.

    Args:
        judged: From a removal to what it loses.
        limit: Percent.
        most: The largest removal that there is.
        progress: Called with how many plans are judged.
        least: What is removed in any case; judged first where it is something.

    Raises:
        UsageError: that, or the smallest that was tried, loses more.
    """
    low, high = least, most
    best: tuple[float, Drop] | None = None
    tried: dict[float, float] = {}
    first = [least, most] if least else [most]  # perhaps everything may go
    for trial in range(TRIALS):
        middle = first[trial] if trial < len(first) else (low + high) / 2
        drop = judged(middle)
        tried[round(middle, 4)] = drop.drop
        if progress is not None:
            progress(trial + 1)
        if drop.drop <= limit:
            low, best = middle, (middle, drop)
            if middle >= most:
                break
        elif middle > least:
            high = middle
        else:
            break
    if best is None:
        lost = min(tried.values())
        hint = f"allow {lost:.3g} or more, give more data, or fine-tune"
        raise UsageError(f"every plan that was tried loses more than {limit:g} percent", hint=hint)
    removal, drop = best
    return removal, Drop(drop.metric, drop.limit, drop.drop, drop.values, drop.examples, tried)
