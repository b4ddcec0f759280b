"""Kinds under their former names: amounts, patterns, scorers and plans still take them, and warn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prunegraph.analysis.former_kinds import present_name
from prunegraph.analysis.selection import Selection
from prunegraph.passes.choose.request import Amount, Scope, scorers_by_kind

PLAN = '{"prunegraph_plan": 1, "groups": {"query_slot.0": {"shape": [2, 2], "kept": [0, 2]}}}'

USES: dict[str, Callable[[], Any]] = {
    "ratio": lambda: dict(Amount({"query_slot": 0.5}).ratios) == {"query_head": 0.5},
    "keep": lambda: dict(Amount(keep={"query_slot.1": 2}).keep) == {"query_head.1": 2},
    "kinds": lambda: Amount(kinds="query_slot").kinds == ("query_head",),
    "drop": lambda: Amount(drop=["query_slot.*"]).drop == ("query_head.*",),
    "include": lambda: Scope(include="query_slot*").include == ("query_head*",),
    "exclude": lambda: Scope(exclude=["query_slot.?"]).exclude == ("query_head.?",),
    "scorer": lambda: set(scorers_by_kind({"query_slot": "magnitude"}).by_kind) == {"query_head"},
    "plan": lambda: list(Selection.from_json(PLAN).keep) == ["query_head.0"],
}


@pytest.mark.parametrize("use", USES)
def test_a_former_name_is_understood(use: str) -> None:
    """And a warning says the present one."""
    with pytest.warns(DeprecationWarning, match="'query_head"):
        assert USES[use]()


@pytest.mark.parametrize("name", ["query_head.0", "head", "*.query_slot.*", "query_slots.weight", "encoder.query_slot"])
def test_other_names_stay(name: str, recwarn: pytest.WarningsRecorder) -> None:
    """Scopes of a model may hold the same words."""
    assert present_name(name) == name and not recwarn.list


def test_the_units_of_a_plan_are_those_that_it_states() -> None:
    """Under the present name."""
    with pytest.warns(DeprecationWarning):
        selection = Selection.from_json(PLAN)
    np.testing.assert_array_equal(selection.keep["query_head.0"], [[True, False], [True, False]])
