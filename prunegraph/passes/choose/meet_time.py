"""Find the least removal that reaches a measured speed-up: cut, time beside the original, correct, until it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from prunegraph.bench.stats import PairedRatio
from prunegraph.errors import UsageError

Plan = TypeVar("Plan")

UNDER, OVER = 0.98, 1.05
"""The measured ratio lies within these factors of what was asked for."""

STEPS = 10
CLOSE = 1e-3
"""Removals nearer to each other than this are one."""


@dataclass(frozen=True, slots=True)
class TimedPlan(Generic[Plan]):
    """A plan and how fast it is.

    Attributes:
        removal: What was asked of whoever made the plan, in [0, 1].
        plan: What it made.
        ratio: How many times faster than the original, measured side by side.
    """

    removal: float
    plan: Plan
    ratio: PairedRatio


@dataclass(frozen=True, slots=True)
class TimeMet(Generic[Plan]):
    """The plan that was found, and everything that was tried on the way.

    Attributes:
        asked: The speed-up that was asked for.
        best: The plan.
        tried: All plans, in order.
        sure: Whether the whole interval of the measured ratio lies within what counts as met; False where the machine
            is too noisy to tell.
    """

    asked: float
    best: TimedPlan[Plan]
    tried: tuple[TimedPlan[Plan], ...] = field(repr=False)
    sure: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        tried = [{"removal": plan.removal, **asdict(plan.ratio)} for plan in self.tried]
        return {"asked": self.asked, "measured": asdict(self.best.ratio), "sure": self.sure, "tried": tried}


def meet_speedup(
    speedup: float, make: Callable[[float], Plan], measure: Callable[[Plan], PairedRatio], most: float = 1.0
) -> TimeMet[Plan]:
    """The smallest removal whose measured speed-up is within -2 % and +5 % of what was asked for.

    The share of the time that is left falls about linearly with the removal, so that a line through what was measured
    says where to look next; where it does not, the bracket still shrinks with every step.

    Args:
        speedup: How many times faster, above 1.
        make: From a removal in [0, most] to a plan; a larger removal is never slower.
        measure: How many times faster than the original a plan is.
        most: The largest removal that there is.

    Raises:
        UsageError: even the largest removal is slower; the message says how fast it is.
    """
    if not speedup > 1:
        raise UsageError(f"the speed-up is {speedup}", hint="give more than 1, such as 2 for twice as fast")
    tried: list[TimedPlan[Plan]] = []

    def at(removal: float) -> TimedPlan[Plan]:
        plan = make(removal)
        tried.append(TimedPlan(removal, plan, measure(plan)))
        return tried[-1]

    slow, slow_time = 0.0, 1.0
    guess = min(most, 1 - 1 / speedup)
    fast, fast_time = most, None
    for _ in range(STEPS):
        now = at(guess)
        if UNDER * speedup <= now.ratio.median <= OVER * speedup:
            return _met(speedup, now, tried)
        left = 1 / now.ratio.median
        if now.ratio.median < speedup:
            if guess >= most - CLOSE:
                raise _too_slow(speedup, now)
            slow, slow_time = guess, left
        else:
            fast, fast_time = guess, left
        if fast - slow < CLOSE:
            break
        guess = _next(speedup, slow, slow_time, fast, fast_time)
    reached = [plan for plan in tried if plan.ratio.median >= UNDER * speedup]
    if not reached:
        reached = [at(fast)]
        if reached[0].ratio.median < UNDER * speedup:
            raise _too_slow(speedup, max(tried, key=lambda plan: plan.ratio.median))
    return _met(speedup, min(reached, key=lambda plan: plan.removal), tried)


def _next(goal: float, slow: float, slow_time: float, fast: float, fast_time: float | None) -> float:
    """Where the line through two measurements crosses the time that was asked for (a little below it)."""
    time = 1 / (goal * (1 + OVER) / 2) if fast_time is not None else 1 / goal
    if fast_time is None:  # nothing fast enough so far: extend the line from the original through the last one
        return min(fast, slow * (1 - time) / max(1 - slow_time, 1e-6)) if slow_time < 1 else fast
    share = (slow_time - time) / max(slow_time - fast_time, 1e-9)
    return slow + (fast - slow) * min(max(share, 0.1), 0.9)


def _met(speedup: float, best: TimedPlan[Plan], tried: list[TimedPlan[Plan]]) -> TimeMet[Plan]:
    sure = best.ratio.low >= UNDER * speedup and best.ratio.high <= OVER * speedup
    return TimeMet(speedup, best, tuple(tried), sure)


def _too_slow(speedup: float, fastest: TimedPlan[Any]) -> UsageError:
    ratio = fastest.ratio
    return UsageError(
        f"{speedup:g} times as fast cannot be had: with next to nothing left of what may be removed it is "
        f"{ratio.median:.2f} times [{ratio.low:.2f}, {ratio.high:.2f}]",
        hint=f"ask for {ratio.low:.2f} or less, or let more kinds be pruned: kinds=…, --kind KIND (hidden, qk_dim)",
    )
