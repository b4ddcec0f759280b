"""What a proof looks at inside of the slim model: which values, in which runs, beside what of other numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunegraph.passes.prove.choices import Behind
from prunegraph.passes.prove.inner import Perturbation, Shadow
from prunegraph.passes.prove.runs import Values, run_all
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import UNLIMITED, Limits


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at inside of the slim model.

    Attributes:
        model: The slim model, and what it would compute from other numbers.
        shadows: Where that stands.
        other: By rewritten weight, how the other numbers are made.
        behind: What hangs on choices.
        parts: Names of inner values, in parts that fit into memory.
        feeds: What the slim model runs on.
        limits: What a run may take.
    """

    model: ir.Model
    shadows: Sequence[Shadow]
    other: Mapping[str, Perturbation]
    behind: Behind
    parts: Sequence[Sequence[str]]
    feeds: Sequence[Feeds]
    limits: Limits = UNLIMITED

    def at(self, names: Sequence[str]) -> Values:
        """What the first input makes of some values, and of what would be in their place."""
        chosen = set(names)
        outputs = [*names, *(shadow.name for shadow in self.shadows if shadow.value in chosen)]
        return run_all(self.model, self.feeds[:1], [], outputs, optimize=False, limits=self.limits)[0]
