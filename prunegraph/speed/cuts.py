"""Which versions of a model a latency table is measured with: few, for between them time runs along straight lines.

Alike blocks are cut together, to a half, to about one unit, and to none: what the last unit saves is far off the line
through the others.  One version has everything at its smallest, since savings that were measured one by one add up to
more than there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed
from prunegraph.bench.device_table import Cut
from prunegraph.passes.choose.rank import rounded_count
from prunegraph.pipeline import rewrite
from prunegraph.speed.blocks import TimedBlock, alike
from prunegraph.speed.widths import width_cuts

EVERYTHING = "everything at its smallest"

ONE = 1 / 48
"""About one unit, as a share of the units of a wide group: 32 neurons of 1,536."""

MAIN, INNER = (0.5, ONE), (0.5, 0.25)
"""Shares that stay, of the units of a block and of the dims inside of them."""

BETWEEN = (0.75, 0.25)
"""Further shares of a block whose time does not run along a line."""


def table_cuts(blocks: Sequence[TimedBlock], align: int | None = None, widths: Sequence[Group] = ()) -> tuple[Cut, ...]:
    """The versions that a table is measured with, the one with everything at its smallest last.

    Args:
        blocks: See `blocks_of`.
        align: To which multiples widths are rounded, see `Amount`.
        widths: Residual widths, which everything at its smallest leaves whole; see `width_groups`.
    """
    cuts = [cut for members in alike(blocks) for cut in _cuts_of(members, align)]
    least = {name: count for block in blocks for name, count in block.smallest.items()}
    return (*cuts, *width_cuts(widths, align), Cut(EVERYTHING, least))


def cuts_between(members: Sequence[TimedBlock], align: int | None = None) -> tuple[Cut, ...]:
    """Further versions of alike blocks, where the half is off the line between the others."""
    return tuple(_at_shares([block.main for block in members], BETWEEN, align))


def cut_model(analyzed: Analyzed, cut: Cut, forms: tuple[str, ...] = ()) -> ir.Model:
    """The version: the first units of every group stay, since time does not depend on which ones do; unproven.

    Args:
        analyzed: The model.
        cut: How many units stay.
        forms: Equal forms to write, see `passes.rewrite.for_runtime`.
    """
    groups = {group.id: group for group in analyzed.analysis.groups}
    keep = {
        name: np.broadcast_to(np.arange(groups[name].units) < count, groups[name].shape).copy()
        for name, count in cut.kept.items()
    }
    slim, _ = rewrite(analyzed, Selection(keep), check=False, forms=forms)
    return slim


def _cuts_of(members: Sequence[TimedBlock], align: int | None) -> Iterator[Cut]:
    mains = [block.main for block in members]
    yield from _at_shares(mains, MAIN, align)
    if members[0].least == 0:
        yield _cut(mains, 0)
    for inner in zip(*(block.inner for block in members), strict=True):
        yield from _at_shares(inner, INNER, align)


def _at_shares(groups: Sequence[Group], shares: Sequence[float], align: int | None) -> Iterator[Cut]:
    first = groups[0]
    counts = [rounded_count(first, max(first.least, 1, round(share * first.units)), align) for share in shares]
    yield from (_cut(groups, count) for count in dict.fromkeys(counts) if count < first.units)


def _cut(groups: Sequence[Group], count: int) -> Cut:
    more = f" and {len(groups) - 1} like it" if len(groups) > 1 else ""
    return Cut(f"{groups[0].id}{more}: {count} of {groups[0].units}", {group.id: count for group in groups})
