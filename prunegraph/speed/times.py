"""From a latency table to the time of any plan: straight lines between what was measured, scaled to the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.arrays import Floats
from prunegraph.bench.device_table import LatencyTable
from prunegraph.bench.stats import PairedRatio
from prunegraph.errors import UsageError
from prunegraph.speed.blocks import TimedBlock, alike
from prunegraph.speed.cuts import EVERYTHING

Counts = Mapping[str, int]
"""By group id how many units stay; groups not named stay whole."""


@dataclass(frozen=True, slots=True)
class Line:
    """What cutting a group saves, as a share of the original's time, by how many of its units stay.

    Attributes:
        counts: Ascending, the last one all units.
        saved: Descending, the last one 0.
        none: What is saved where no unit stays: more than the line says.
    """

    counts: tuple[int, ...]
    saved: tuple[float, ...]
    none: float | None = None

    def at(self, kept: Floats) -> Floats:
        """What is saved where so many units stay."""
        saved = np.interp(kept, self.counts, self.saved)
        return saved if self.none is None else np.where(np.asarray(kept) == 0, self.none, saved)


@dataclass(frozen=True, slots=True)
class BlockTime:
    """What one block saves.

    Attributes:
        block: The block.
        main: By the units of the block.
        inner: By the dims inside, for each inner group, where all units stay.
        scale: What brings the savings of all blocks together to what the model saves with everything at its smallest.
    """

    block: TimedBlock
    main: Line
    inner: tuple[Line, ...]
    scale: float = 1.0

    def saved(self, main: Floats, *inner: Floats) -> Floats:
        """The share of the original's time that is saved; dims inside of units that are gone save nothing more."""
        within = sum((line.at(kept) for line, kept in zip(self.inner, inner, strict=True)), np.zeros(()))
        return self.scale * (self.main.at(main) + within * np.asarray(main) / self.block.main.units)

    def of(self, kept: Counts) -> float:
        """What is saved by a plan."""
        return float(self.saved(*(np.asarray(kept.get(group.id, group.units)) for group in self.block.groups)))


@dataclass(frozen=True, slots=True)
class Times:
    """What every block saves, and how little time there is with everything at its smallest.

    Attributes:
        blocks: By the id of the main group.
        least: The share of the original's time that is left then.
    """

    blocks: Mapping[str, BlockTime]
    least: float

    def left(self, kept: Counts) -> float:
        """The share of the original's time that a plan takes."""
        return max(self.least, 1 - sum(each.of(kept) for each in self.blocks.values()))

    def ratio(self, kept: Counts) -> PairedRatio:
        """How many times faster a plan is, as far as the table tells."""
        faster = 1 / max(self.left(kept), 1e-9)
        return PairedRatio(faster, faster, faster)


def times_of(table: LatencyTable, blocks: Sequence[TimedBlock]) -> Times:
    """What a table says of blocks.

    Args:
        table: Measured here or elsewhere.
        blocks: See `blocks_of`.

    Raises:
        UsageError: it is of another model, or says nothing of some block.
    """
    _check(table, blocks)
    smallest = {name: count for block in blocks for name, count in block.smallest.items()}
    floor = next((cut for cut in table.cuts if cut.name == EVERYTHING or cut.kept == smallest), None)
    timed: dict[str, BlockTime] = {}
    for members in alike(blocks):
        main = _line([block.main for block in members], table)
        inner = tuple(_line(each, table) for each in zip(*(block.inner for block in members), strict=True))
        if len(main.counts) == 1 and not any(len(line.counts) > 1 for line in inner):
            hint = "measure it anew: prunegraph table MODEL, with the same --kind"
            raise UsageError(f"the latency table says nothing of {members[0].main.id}", hint=hint)
        timed |= {block.main.id: BlockTime(block, main, inner) for block in members}
    together = sum(each.of(each.block.smallest) for each in timed.values())
    if floor is None or together <= 0:
        return Times(timed, max(0.0, 1 - together))
    saved = 1 - 1 / floor.ratio.median
    scaled = {name: _scaled(each, saved / together) for name, each in timed.items()}
    return Times(scaled, 1 - saved)


def _scaled(each: BlockTime, scale: float) -> BlockTime:
    return BlockTime(each.block, each.main, each.inner, scale)


def _line(groups: Sequence[Group], table: LatencyTable) -> Line:
    """What a table says of one group of every alike block."""
    ids, units = {group.id for group in groups}, groups[0].units
    saved = {units: 0.0}
    for cut in table.cuts:
        if set(cut.kept) == ids and len(set(cut.kept.values())) == 1 and cut.name != EVERYTHING:
            saved[next(iter(cut.kept.values()))] = (1 - 1 / cut.ratio.median) / len(groups)
    none = saved.pop(0, None)
    counts = sorted(saved)
    falling = np.maximum.accumulate([saved[count] for count in reversed(counts)])[::-1]
    least = float(falling[0])
    return Line(tuple(counts), tuple(map(float, falling)), None if none is None else max(none, least))


def _check(table: LatencyTable, blocks: Sequence[TimedBlock]) -> None:
    for block in blocks:
        for group in block.groups:
            if table.groups.get(group.id) != group.units:
                other = table.groups.get(group.id, "no")
                hint = "give the table of this very model: prunegraph table MODEL -o FILE"
                raise UsageError(
                    f"the latency table has {other} units of {group.id}, the model {group.units}", hint=hint
                )
