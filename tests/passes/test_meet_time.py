"""A speed-up that is asked for is met, however a machine answers, or refused with the fastest that there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prunegraph.bench.stats import PairedRatio
from prunegraph.errors import UsageError
from prunegraph.passes.choose.meet_time import OVER, STEPS, UNDER, meet_speedup

TIMES: dict[str, Callable[[float], float]] = {
    "a line": lambda removal: 1 - 0.95 * removal,
    "a floor": lambda removal: max(0.2, 1 - 0.8 * removal),
    "little at first": lambda removal: 1 - 0.95 * removal**3,
    "most at first": lambda removal: 1 - 0.95 * removal**0.4,
    "stairs": lambda removal: 1 - 0.95 * round(removal * 40) / 40,
    "slower at first": lambda removal: 1.02 - 0.98 * removal if removal else 1.0,
}


def exactly(ratio: float) -> PairedRatio:
    return PairedRatio(ratio, ratio * 0.995, ratio * 1.005)


@pytest.mark.parametrize("speedup", [1.25, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("name", TIMES)
def test_what_is_asked_for_is_met(name: str, speedup: float) -> None:
    met = meet_speedup(speedup, lambda removal: removal, lambda removal: exactly(1 / TIMES[name](removal)))
    assert UNDER * speedup <= met.best.ratio.median <= OVER * speedup
    assert len(met.tried) <= STEPS and met.best in met.tried


@pytest.mark.parametrize("speedup", [10.0, 50.0])
def test_what_cannot_be_had_is_refused_with_the_fastest(speedup: float) -> None:
    with pytest.raises(UsageError, match=r"it is 5\.00 times") as error:
        meet_speedup(speedup, lambda removal: removal, lambda removal: exactly(1 / TIMES["a floor"](removal)))
    assert "4.9" in error.value.hint


@pytest.mark.parametrize("speedup", [1.0, 0.5, float("nan")])
def test_no_speed_up_is_no_request(speedup: float) -> None:
    with pytest.raises(UsageError, match="the speed-up is"):
        meet_speedup(speedup, lambda removal: removal, lambda removal: exactly(1.0))


def test_coarse_stairs_give_what_is_at_least_as_fast() -> None:
    coarse = meet_speedup(2.0, lambda removal: removal, lambda removal: exactly(1.5 if removal < 0.6 else 3.0))
    assert coarse.best.ratio.median == 3.0 and coarse.best.removal == pytest.approx(0.6, abs=0.2)


def test_a_noisy_machine_is_said() -> None:
    noisy = meet_speedup(2.0, lambda removal: removal, lambda removal: PairedRatio(2.0, 1.6, 2.5))
    assert not noisy.sure and meet_speedup(2.0, lambda r: r, lambda r: exactly(2.02)).sure
