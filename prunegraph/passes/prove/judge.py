"""Judge the slim model by what is expected of it: what differs, by more than rounding, and before or behind choices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.kept_positions import Positions
from prunegraph.passes.prove.choices import Behind
from prunegraph.passes.prove.compare import TOLERANCE, Gap, compare, noisier
from prunegraph.passes.prove.inner import Shadow
from prunegraph.passes.prove.runs import Noise, Values, jittered, jittered_feeds, noise_of, run_all
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import UNLIMITED, Limits

SEEDS = (1, 2, 3)
"""What rounding does is measured only where something differs by more than the tolerance, and so often at most."""


@dataclass
class Judge:
    """What is expected of the slim model, and what rounding does to it, measured as often as it is needed."""

    oracle: ir.Model
    feeds: Sequence[Feeds]
    outputs: Sequence[str]
    inner: Sequence[str]
    expected: Sequence[Values]
    positions: Positions
    behind: Behind
    noise: list[Noise]
    limits: Limits = UNLIMITED
    gaps: dict[str, Gap] = field(default_factory=dict)

    def faults(self, actual: Sequence[Values]) -> list[str]:
        """The names of what differs by more than rounding; the gaps of all are kept."""
        for seed in (None, *SEEDS):
            if seed is not None:
                self._measure(seed)
            self.gaps = all_gaps(self.expected, actual, self.noise)
            wrong = [name for name, gap in self.gaps.items() if not gap.rounding]
            if all(self.gaps[name].relative > 2 * TOLERANCE for name in wrong):  # no rounding is that large
                break
        return wrong

    def _measure(self, seed: int) -> None:
        feeds = jittered_feeds(self.feeds, seed)
        again = run_all(jittered(self.oracle, seed), feeds, self.outputs, self.inner, limits=self.limits)
        measured = noise_of(self.expected, [self.positions.cut_all(values) for values in again])
        self.noise = both_noises(self.noise, measured)

    def only_choices(self, faults: Collection[str], shadows: Sequence[Shadow]) -> bool:
        """Whether all that differs lies behind choices, and what lies before them agrees and shows every weight."""
        before = {s.weight for s in shadows if s.value not in self.behind.values}
        return (
            set(faults) <= self.behind.values
            and bool(self.behind.last)
            and not set(faults) & set(self.behind.last)
            and before == {s.weight for s in shadows}
        )


def all_gaps(expected: Sequence[Values], actual: Sequence[Values], noise: Sequence[Noise]) -> dict[str, Gap]:
    """The worst gap of every value over all runs, by name; only of those that both have."""
    gaps: dict[str, Gap] = {}
    for left, right, rounding in zip(expected, actual, noise, strict=True):
        for name in left.keys() & right.keys():
            gap = compare(left[name], right[name], rounding.get(name))
            if name not in gaps or gap.excess > gaps[name].excess:
                gaps[name] = gap
    return gaps


def worst_of(gaps: Mapping[str, Gap]) -> Gap:
    """The gap that is furthest beyond rounding; none where nothing was compared."""
    return max(gaps.values(), key=lambda gap: gap.excess, default=Gap())


def both_noises(left: Sequence[Noise], right: Sequence[Noise]) -> list[Noise]:
    """The larger of two measurements of what rounding does, run by run."""
    return [{name: noisier([a.get(name), b[name]]) for name in b} for a, b in zip(left, right, strict=True)]


def in_words(faults: Iterable[str], gaps: Mapping[str, Gap]) -> str:
    """What differs most, and where."""
    worst = max(faults, key=lambda name: gaps[name].excess, default=None)
    if worst is None:
        return ""
    gap = gaps[worst]
    if not np.isfinite(gap.absolute):
        return f"{worst} has another shape, or is not finite in one of them alone"
    where = f" (worst at index {gap.index} of axis {gap.axis})" if gap.length > 1 else ""
    return f"{worst} differs by {gap.relative:.2e} of its scale, {gap.excess:.1f} times what counts as rounding{where}"
