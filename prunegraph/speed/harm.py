"""Harm: how far the outputs of a re-fitted slim model are from those of the original, remembered from run to run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed
from prunegraph.observe.cache import default_cache
from prunegraph.observe.divergence import Outputs, divergence, outputs_of
from prunegraph.observe.fingerprint import fingerprint
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.choose.rank import rounded_count, select
from prunegraph.passes.repair import Gram, gather_moments
from prunegraph.passes.score.base import Scores
from prunegraph.pipeline import refit, rewrite
from prunegraph.speed.blocks import TimedBlock
from prunegraph.speed.cuts import ONE
from prunegraph.speed.tail import Tails

logger = logging.getLogger(__name__)

EXAMPLES = 256
"""Examples that harm is measured on, the first of the data."""

MAIN, INNER = (0.75, 0.5, 0.25, 0.125, ONE), (0.5, 0.25)
"""Shares of units that stay at which harm is measured: of a block, and of the dims inside of its units."""

HarmProgress = Callable[[int], None]
Harms = Mapping[str, Mapping[int, float]]
"""By group id and kept number, how far the outputs are from the original's where this group alone is cut."""


@dataclass(slots=True)
class Notes:
    """Numbers by key in a file that is added to line by line: what a run found before it was stopped is not lost.

    Attributes:
        path: The file; None keeps them for this run alone.
    """

    path: Path | None
    known: dict[str, float] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path | None) -> Notes:
        """What the file holds; a line that was not written to its end is passed over."""
        notes = cls(path)
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    key, value = json.loads(line)
                    notes.known[str(key)] = float(value)
                except (ValueError, TypeError):
                    logger.info("a line of %s cannot be read", path)
        return notes

    def of(self, key: str, compute: Callable[[], float]) -> float:
        """The number of a key, computed where it is not known."""
        if key not in self.known:
            self.known[key] = compute()
            if self.path is not None:
                try:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    with self.path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([key, self.known[key]]) + "\n")
                except OSError as error:
                    logger.warning("the harm of cuts is not cached: %s", error)
                    self.path = None
        return self.known[key]


class Harm:
    """Measures how far the outputs of a re-fitted slim model are from those of the original."""

    def __init__(self, analyzed: Analyzed, data: Data, *, cache: Path | None = None) -> None:
        """Measure on data; nothing is run before a harm is asked for that is not known.

        Args:
            analyzed: The model.
            data: What outputs are compared on, and weights are re-fitted on.
            cache: A folder of harms that were measured before.
        """
        self.analyzed = analyzed
        self.inputs: Inputs = analyzed.inputs(data)
        facts = f"{fingerprint(analyzed.normalized.model)}|{self.inputs.fingerprint}|{EXAMPLES}"
        key = hashlib.sha256(facts.encode()).hexdigest()[:32]
        self.notes = Notes.at(None if cache is None else cache / f"{key}.jsonl")

    @cached_property
    def outputs(self) -> Outputs:
        """What the original says of the examples."""
        examples = self.inputs.first(EXAMPLES)
        return outputs_of(self.analyzed.normalized.model, self.analyzed.analysis, examples)

    @cached_property
    def moments(self) -> Gram | None:
        """What re-fitting needs, of all weights in one pass; None where that does not fit into memory."""
        return gather_moments(self.analyzed.normalized.model, self.analyzed.analysis, self.inputs)

    @cached_property
    def tails(self) -> Tails:
        """Harms of groups that one product sums."""
        model, analysis = self.analyzed.normalized.model, self.analyzed.analysis
        return Tails(model, analysis, self.inputs, self.outputs, self.moments)

    def of(self, selection: Selection) -> float:
        """The divergence after the repair that follows a proof."""
        if not selection.keep:
            return 0.0
        key = hashlib.sha256(selection.to_json().encode()).hexdigest()[:32]
        return self.notes.of(key, lambda: self._measured(selection))

    def _measured(self, selection: Selection) -> float:
        value = self.tails.harm(selection)
        return divergence(self.slim(selection), self.outputs) if value is None else value

    def slim(self, selection: Selection, *, sweep_exact: bool = False) -> ir.Model:
        """The re-fitted slim model, unproven.

        Args:
            selection: What stays.
            sweep_exact: Whether it is swept as the result of a plan is; every plan that is measured would take longer.
        """
        slim, _ = refit(self.analyzed, selection, self.inputs, moments=self.moments, sweep_exact=sweep_exact)
        return slim if slim is not None else rewrite(self.analyzed, selection, check=False)[0]


def harm_cache() -> Path:
    """The folder of harms, beside that of observations."""
    return default_cache().parent / "harm"


def levels_of(group: Group, shares: Sequence[float], least: int, align: int | None) -> tuple[int, ...]:
    """The kept numbers at which the harm of a group is measured, descending; all units are not among them."""
    tried = [rounded_count(group, max(group.least, 1, round(share * group.units)), align) for share in shares]
    counts = [count for count in dict.fromkeys([*tried, *([least] if least == 0 else [])]) if count < group.units]
    return tuple(counts)


def harm_table(
    blocks: Sequence[TimedBlock],
    scores: Mapping[str, Scores],
    align: int | None,
    harm: Callable[[Selection], float],
    progress: HarmProgress | None = None,
) -> dict[str, dict[int, float]]:
    """The harm of every group, cut alone to several levels.

    Args:
        blocks: What may get smaller.
        scores: By group id.
        align: See `Amount`.
        harm: Of a selection, re-fitted.
        progress: Called with how many levels are done.
    """
    table: dict[str, dict[int, float]] = {}
    done = 0
    for group, counts in _levels(blocks, align):
        table[group.id] = {group.units: 0.0}
        for count in counts:
            worse = harm(select([group], scores, {group.id: count}))
            table[group.id][count] = max(worse, *table[group.id].values())
            done += 1
            if progress is not None:
                progress(done)
    return table


def _levels(blocks: Sequence[TimedBlock], align: int | None) -> Iterator[tuple[Group, tuple[int, ...]]]:
    for block in blocks:
        yield block.main, levels_of(block.main, MAIN, block.least, align)
        for group in block.inner:
            yield group, levels_of(group, INNER, group.least, align)
