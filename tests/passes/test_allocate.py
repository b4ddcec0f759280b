"""The allocation is the best of all, by trying all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunegraph.errors import UsageError
from prunegraph.passes.choose.allocate import BUCKETS, Level, allocate

levels = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 10)), min_size=1, max_size=4)


def levels_of(drawn: Sequence[Sequence[tuple[int, float]]]) -> dict[str, list[Level]]:
    return {
        f"item{k}": [Level(f"{row}", float(time), harm) for row, (time, harm) in enumerate(each)]
        for k, each in enumerate(drawn)
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(levels, min_size=1, max_size=4), st.integers(5, 120))
def test_no_plan_within_the_budget_does_less_harm(drawn: list[list[tuple[int, float]]], budget: int) -> None:
    items = levels_of(drawn)
    fitting = [plan for plan in product(*items.values()) if sum(level.time for level in plan) <= budget]
    if not fitting:
        with pytest.raises(UsageError, match="no plan is that fast"):
            allocate(items, budget)
        return
    plan = allocate(items, budget)
    assert list(plan) == list(items) and all(plan[name] in items[name] for name in items)
    slack = budget / BUCKETS * len(items)
    assert sum(level.time for level in plan.values()) <= budget + slack
    tight = [p for p in fitting if sum(level.time for level in p) <= budget - slack]
    if tight:
        best = min(sum(level.harm for level in p) for p in tight)
        assert sum(level.harm for level in plan.values()) <= best + 1e-6


def test_of_equal_plans_the_faster_one_is_taken() -> None:
    plan = allocate({"a": [Level("slow", 5, 1.0), Level("fast", 2, 1.0)]}, 10)
    assert plan["a"].name == "fast"


def test_a_generous_budget_harms_nothing() -> None:
    rng = np.random.default_rng(0)
    items = {f"{k}": [Level("whole", 10.0, 0.0), Level("half", 5.0, float(rng.random()))] for k in range(12)}
    assert all(level.name == "whole" for level in allocate(items, 120.0).values())
