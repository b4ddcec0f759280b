"""Time models interleaved: every arm once a round, in an order drawn anew each round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from prunegraph.bench.stats import MIN_ROUNDS, FloatArray

WARMUP_SHARE = 0.25
"""Of the time limit: a slow model must not spend all of it on warming up."""

STEADY, STEADY_WITHIN, LONGEST = 5, 0.05, 4
"""Warm-up ends once so many runs of every arm are so near to each other, or after so many times the rounds given."""

PROTOCOLS = {"turns": 1, "blocks": 8}
"""How many runs of a model follow each other.

In turns every run finds the caches as another model left them, as where a model runs now and then; in blocks all but
the first, which is not counted, find them as the run before left them, as in a busy server."""


def interleave(
    arms: Sequence[Callable[[], None]],
    *,
    warmup: int,
    rounds: int,
    max_seconds: float,
    rng: np.random.Generator,
    block: int = 1,
    on_round: Callable[[int], None] = lambda done: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> FloatArray:
    """Time all arms side by side.

    Timing one arm after the other measures the machine's mood as much as the arms; a random order each round spreads
    drift, caches and other load evenly over them.

    Args:
        arms: What to time; each call runs one arm once and returns when it is done.
        warmup: Rounds that are run first and thrown away; more of them, four times as many at most, until times are
            steady.
        rounds: Rounds to time, at least ``MIN_ROUNDS``.
        max_seconds: No new round is begun after this time, once ``MIN_ROUNDS`` are there.
        rng: Draws the orders.
        block: Runs of an arm that follow each other, see `PROTOCOLS`; of several the mean of all but the first counts.
        on_round: Called between rounds, outside the timed part, with the number of timed rounds that are done.
        clock: Nanoseconds, monotonic.

    Returns:
        Milliseconds, shape ``[rounds done, arms]``, ``rounds done <= rounds``.
    """
    begin = clock()
    _warm_up(arms, warmup, begin + max_seconds * WARMUP_SHARE * 1e9, rng, clock)
    samples = np.empty((rounds, len(arms)))
    with _no_garbage_collection():
        for done in range(rounds):
            if done >= MIN_ROUNDS and clock() - begin > max_seconds * 1e9:
                return samples[:done]
            for arm in rng.permutation(len(arms)):
                samples[done, arm] = _milliseconds(arms[arm], block, clock)
            on_round(done + 1)
    return samples


def _warm_up(
    arms: Sequence[Callable[[], None]], rounds: int, end: float, rng: np.random.Generator, clock: Callable[[], int]
) -> None:
    """Run rounds that do not count, and more of them while times still change: clocks, caches and kernels settle."""
    last: list[list[float]] = [[] for _ in arms]
    for done in range(rounds * LONGEST):
        if done >= rounds and all(_is_steady(times[-STEADY:]) for times in last):
            return
        for arm in rng.permutation(len(arms)):
            last[arm].append(_milliseconds(arms[arm], 1, clock))
        if clock() > end:
            return


def _is_steady(times: Sequence[float]) -> bool:
    return max(times) <= (1 + STEADY_WITHIN) * min(times)


def _milliseconds(run: Callable[[], None], block: int, clock: Callable[[], int]) -> float:
    """What one run takes: the only one of its block, or one of those after the first."""
    counted = max(1, block - 1)
    if block > 1:
        run()
    start = clock()
    for _ in range(counted):
        run()
    return (clock() - start) / 1e6 / counted


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from landing inside one arm's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
