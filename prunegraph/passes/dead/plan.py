"""What was folded into biases as text, beside a selection in a plan, and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunegraph.errors import UsageError
from prunegraph.passes.dead.fold import Folded, FoldedFeatures


def to_plan(rounds: Sequence[Folded]) -> list[dict[str, Any]]:
    """What a plan file says of it, under "dead": for every round the features of weights and what they hold."""
    return [
        {name: {"features": list(site.features), "values": list(site.values)} for name, site in folded.items()}
        for folded in rounds
    ]


def from_plan(plan: Mapping[str, Any]) -> tuple[Folded, ...] | None:
    """What the JSON of a plan file says was folded; None where it says nothing of dead units.

    Raises:
        UsageError: it cannot be understood.
    """
    if "dead" not in plan:
        return None
    try:
        return tuple({str(name): _site(entry) for name, entry in each.items()} for each in plan["dead"])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        hint = "use the plan written beside the slim model, and the model it was made from"
        raise UsageError(f"the plan does not say what was folded into biases: {error}", hint=hint) from error


def _site(entry: Mapping[str, Any]) -> FoldedFeatures:
    features, values = tuple(map(int, entry["features"])), tuple(map(float, entry["values"]))
    if len(features) != len(values):
        raise ValueError("as many values as features are needed")
    return FoldedFeatures(features, values)
