"""Re-fit a weight by ridge least squares when some of its inputs go, and keep it only if held-out samples gain.

With centred second moments C of the features, K what stays and R what goes, ridge least squares for the change of the
weight is `(C_KK + λ)⁻¹ C_KR W_R`, λ being a share of the mean diagonal; the bias takes up the means. Shrinking the
change, not the weight, leaves a weight alone whose lost inputs were dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunegraph.arrays import Array, Floats, Mask
from prunegraph.passes.repair.statistics import FIT, JUDGE

TRIED: Mapping[str, tuple[str, ...]] = {"bias": ("bias",), "lstsq": ("lstsq",), "auto": ("bias", "lstsq")}

RIDGE = 1e-3
"""Share of the features' mean variance that is added to every variance."""

GAIN = 0.01
"""Share by which the error must fall on held-out samples."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is added to the rows of a weight that stay, `[features, outputs]` or None, and to the bias, `[outputs]`."""

    weight: Floats | None
    bias: Floats


@dataclass(frozen=True, slots=True)
class Judged:
    """The best of what was tried on one weight.

    Attributes:
        method: "none", "bias" or "lstsq".
        errors: By method, the error of the weight's output on held-out samples: root of the mean over positions of
            the square, relative to that position's output.
        change: None for "none".
    """

    method: str
    errors: Mapping[str, float]
    change: Change | None


def judged(
    sums: Array, counts: Array, kept: Mask, matrix: Floats, tried: Sequence[str], ridge: float = RIDGE
) -> Judged:
    """Fit on one part of the samples, compare on the other, and fit what won on all of them.

    Args:
        sums: `[2, features + 1, features + 1]`, see `Gram`.
        counts: How many positions either part holds.
        kept: Which features stay.
        matrix: The weight, `[features, outputs]`.
        tried: "bias", "lstsq" or both; the error falls on held-out samples, or nothing changes.
        ridge: See `RIDGE`.
    """
    if counts.min() == 0:
        return Judged("none", {}, None)
    nothing = Change(None, np.zeros(matrix.shape[1]))
    able = tried if kept.any() else ("bias",)  # where nothing stays, its mean is the best that can be said
    fitted = {"none": nothing, **{method: fit(method, sums[FIT], kept, matrix, ridge) for method in able}}
    held_out = sums[JUDGE].astype(np.float64)
    errors = {method: _error(held_out, counts[JUDGE], kept, matrix, change) for method, change in fitted.items()}
    best = min(errors, key=lambda method: errors[method])
    if errors[best] >= (1 - GAIN) * errors["none"]:
        return Judged("none", errors, None)
    return Judged(best, errors, fit(best, sums[FIT] + sums[JUDGE], kept, matrix, ridge))


def fit(method: str, sums: Array, kept: Mask, matrix: Floats, ridge: float) -> Change:
    """The change of weight and bias by one method."""
    moments = sums.astype(np.float64)
    mean = moments[-1, :-1] / moments[-1, -1]
    lost = mean[~kept] @ matrix[~kept]
    if method == "bias":
        return Change(None, lost)
    variance = moments[:-1, :-1] / moments[-1, -1] - np.outer(mean, mean)
    own = variance[np.ix_(kept, kept)]
    own[np.diag_indices_from(own)] += ridge * float(np.diag(own).mean())
    target = variance[np.ix_(kept, ~kept)] @ matrix[~kept]
    try:
        solved = np.linalg.solve(own, target)
    except np.linalg.LinAlgError:  # nothing that stays varies, or the ridge is zero
        solved = np.linalg.lstsq(own, target, rcond=None)[0]
    weight = np.zeros_like(matrix)
    weight[kept] = solved
    return Change(weight, lost - mean[kept] @ solved)


def _error(moments: Floats, count: int, kept: Mask, matrix: Floats, change: Change) -> float:
    """`sqrt(tr(Eᵀ S E) / positions)`, E being what the output lacks as a function of the features and of 1."""
    lacks = np.zeros((len(moments), matrix.shape[1]))
    lacks[:-1][~kept] = matrix[~kept]
    if change.weight is not None:
        lacks[:-1] -= change.weight
    lacks[-1] = -change.bias
    return float(np.sqrt(max(float(np.vdot(lacks, moments @ lacks)), 0.0) / count))
