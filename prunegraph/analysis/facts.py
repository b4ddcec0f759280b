"""Facts about a graph that the solver is given; they come from looking at runs, not from trusting annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prunegraph.analysis.axes import Size
from prunegraph.analysis.relations import IntArray


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of every value.

    Attributes:
        probes: How many runs the facts come from.
        shapes: Value name -> one `Size` an axis; a value of unknown rank is missing.
        integers: Value name -> the small integers it held in every probe, where they do not depend on the data.
        unseen: Why the model could not be run, so that shapes are missing; empty where it could.
        endless: Whether that is because a run did not end in its time.
    """

    probes: int
    shapes: Mapping[str, tuple[Size, ...]]
    integers: Mapping[str, tuple[IntArray, ...]]
    unseen: str = ""
    endless: bool = False
