"""Statistics of latencies: median, p95 and minimum of one arm, and the paired ratio of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MIN_ROUNDS = 6
"""With fewer pairs not even their whole range holds the true median 95 % of the time: 1 - 2 * 0.5**5 = 0.94."""


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """How many times faster the second arm is than the first: the median of the per-round ratios.

    Attributes:
        median: first / second; above 1 means that the second is faster.
        low: Lower end of the 95 % bootstrap interval of the median.
        high: Upper end of it.
    """

    median: float
    low: float
    high: float


def paired_ratio(first: FloatArray, second: FloatArray, *, seed: int = 0, resamples: int = 2000) -> PairedRatio:
    """Compare two arms that were timed in the same rounds.

    A round's ratio cancels what slowed both arms alike (clock, temperature, other load), which a ratio of two medians
    does not. The interval is the percentile bootstrap over rounds.

    Args:
        first: Times of the first arm, one per round, shape ``[rounds]``, in any unit.
        second: Times of the second arm in the same rounds and unit, shape ``[rounds]``.
        seed: Of the resampling.
        resamples: How many times the rounds are drawn anew.

    >>> paired_ratio(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    PairedRatio(median=2.0, low=2.0, high=2.0)
    """
    ratios = first / second
    rng = np.random.default_rng(seed)
    # One resample at a time keeps memory at one row however many rounds there are.
    medians = [np.median(rng.choice(ratios, len(ratios))) for _ in range(resamples)]
    low, high = np.quantile(medians, [0.025, 0.975])
    return PairedRatio(float(np.median(ratios)), float(low), float(high))
