"""Results of a repair, weight by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunegraph.passes.repair.write import Written


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one weight that lost inputs.

    Attributes:
        weight: The initializer.
        where: The nodes that it is used by.
        method: "none", "bias" or "lstsq", "gain" of a norm, or "scores" of queries and keys.
        errors: By method, the error of what the weight makes on held-out samples: root of the mean over positions of
            the squared error relative to that position's output. Empty where nothing could be tried.
        features: How many inputs it had and has.
        reason: Why nothing was tried, if nothing was.
    """

    weight: str
    where: tuple[str, ...]
    method: str
    errors: Mapping[str, float]
    features: tuple[int, int] = (0, 0)
    reason: str = ""

    @property
    def before(self) -> float:
        """The error without repair."""
        return self.errors.get("none", float("nan"))

    @property
    def after(self) -> float:
        """The error of what was chosen, fitted without the samples that it is taken on."""
        return self.errors.get(self.method, float("nan"))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return {
            "weight": self.weight,
            "where": list(self.where),
            "method": self.method,
            "features": list(self.features),
            "before": self.before,
            "after": self.after,
            "errors": dict(self.errors),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Attributes:
        requested: What the caller asked for, see `repaired`.
        outcomes: One a weight that lost inputs.
        written: Which initializers of the slim model it changed and added.
        ways: By way ("none", "at once", "sweep") how far the outputs are from those of the whole model on samples
            that the sweep did not see; empty where no sweep was tried.
    """

    requested: str
    outcomes: tuple[Outcome, ...]
    written: Written = field(default_factory=Written)
    ways: Mapping[str, float] = field(default_factory=dict)

    @property
    def way(self) -> str:
        """The way that was taken; empty where no sweep was tried."""
        return min(self.ways, key=self.ways.__getitem__, default="")

    @property
    def chosen(self) -> Counter[str]:
        """How often each method was chosen, over all weights where one could be tried."""
        return Counter(outcome.method for outcome in self.outcomes if outcome.errors)

    def to_dict(self) -> dict[str, Any]:
        """The part of the JSON of `prunegraph prune --json` that says what was repaired."""
        tried = [outcome for outcome in self.outcomes if outcome.errors]
        worst = [max((getattr(o, side) for o in tried), default=None) for side in ("before", "after")]
        mean = [sum(getattr(o, side) for o in tried) / max(len(tried), 1) for side in ("before", "after")]
        return {
            "asked": self.requested,
            "chosen": dict(self.chosen),
            "way": self.way,
            "ways": dict(self.ways),
            "worst": worst,
            "mean": mean if tried else [None, None],
            "weights": [outcome.to_dict() for outcome in self.outcomes],
        }
