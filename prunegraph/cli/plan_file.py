"""Plans as files: what `prunegraph prune` wrote beside a slim model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prunegraph.analysis.selection import Selection
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.passes.dead import Folded
from prunegraph.passes.dead import from_plan as dead_from_plan
from prunegraph.passes.repair import Written
from prunegraph.passes.rotate import Rotation, from_plan
from prunegraph.strict_json import parse_json


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan states.

    Attributes:
        selection: What stays.
        repair: Which weights were re-fitted.
        rotation: How heads were turned before they were cut.
        allow_io: Patterns of inputs and outputs that were allowed to shrink.
        trained: Whether all weights were trained after the proof.
        quantized: How the weights were quantized after the proof; empty if they were not.
        dead: What of constant units was moved into biases before dead units went; None where others went.
        values: Inputs of one value for good.
    """

    selection: Selection
    repair: Written
    rotation: Rotation
    allow_io: Sequence[str]
    trained: bool
    quantized: str = ""
    dead: Sequence[Folded] | None = None
    values: Mapping[str, float] = field(default_factory=dict)


def plan_beside(slim: Path) -> Path:
    """Where the plan of a slim model lies."""
    return slim.with_name(f"{slim.stem}.plan.json")


def vocabulary_plan(given: Path | None, slim: Path) -> Path | None:
    """The plan of a model that knows fewer tokens: the one given, or the only one beside it; None if none is."""
    if given is None:
        beside = slim.with_name(f"{slim.stem}.vocab.json")
        return beside if beside.is_file() and not plan_beside(slim).is_file() else None
    try:
        return given if "prunegraph_vocabulary" in parse_json(given.read_text(encoding="utf-8-sig")) else None
    except (OSError, ValueError, TypeError):
        return None  # whoever reads it as a plan says what is wrong


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        PruneGraphError: it cannot be read, or is no plan.
    """
    hint = "name the plan that was written beside the slim model: --plan PLAN"
    try:
        text = path.read_text(encoding="utf-8-sig")
        selection = Selection.from_json(text)
        stated = parse_json(text)
        allowed = stated.get("allow_io", [])
        if not isinstance(allowed, list) or not all(isinstance(pattern, str) for pattern in allowed):
            raise UsageError("this is no plan file: allow_io is no list of patterns", hint=hint)
        trained = stated.get("trained", False) is not False
        values = stated.get("set", {})
        if not isinstance(values, dict) or not all(isinstance(number, (int, float)) for number in values.values()):
            raise UsageError("this is no plan file: set holds no numbers by name", hint=hint)
        quantized, dead = str(stated.get("quantized", "")), dead_from_plan(stated)
        return Plan(selection, Written.from_plan(stated), from_plan(stated), allowed, trained, quantized, dead, values)
    except OSError as error:
        raise PruneGraphError(f"the plan {path} cannot be read: {error.strerror}", hint=hint) from error
    except UsageError as error:
        raise PruneGraphError(f"{path}: {error.message}", hint=error.hint) from error
    except UnicodeDecodeError as error:
        raise PruneGraphError(f"{path} is no plan file: it is not text", hint=hint) from error
