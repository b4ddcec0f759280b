"""Residual widths of plans: a few narrower streams, and the model turned or scored for each.

A residual width is a side of nearly every product, so that what a narrower one saves is a factor of the time of all
else, and what it does to the outputs does not add to what other cuts do.  It is chosen first, width by width, and the
programme plans what else goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from prunegraph.analysis.groups import Group
from prunegraph.bench.device_table import Cut, LatencyTable
from prunegraph.graph import Graph
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.choose.select_units import in_scope
from prunegraph.passes.choose.targets import Kept
from prunegraph.passes.rotate import groups_to_rotate
from prunegraph.passes.rotate.stream_sites import KIND
from prunegraph.pipeline import rotate

SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2)
"""Widths that are tried, as shares of the whole one."""

STEP, WIDE = 8, 64
"""Streams of at least so many numbers have widths that are multiples of 8."""


def width_groups(graph: Graph, amount: Amount) -> tuple[Group, ...]:
    """The residual widths that norms take their statistics over, where a plan by harm may narrow them beside others.

    Args:
        graph: The analysed model.
        amount: What it says of kinds counts; all layers alike (`uniform`) is no plan by harm.
    """
    if amount.uniform or (amount.kinds and KIND not in amount.kinds):
        return ()
    groups = [group for group in graph.groups if in_scope(group, graph.scope)]
    widths = tuple(group for group in groups if group.kind == KIND)
    others = any(group.kind != KIND and amount.by_default(group.kind, group.exact) for group in groups)
    return () if not others or any(group.exact or group.outer for group in widths) else widths


def without_widths(graph: Graph, amount: Amount) -> Amount:
    """The same amount of all that is no residual width that is chosen by itself.

    Args:
        graph: The analysed model.
        amount: What was asked for.
    """
    if not amount.kinds or not width_groups(graph, amount):
        return amount
    return replace(amount, kinds=tuple(kind for kind in amount.kinds if kind != KIND))


def width_cuts(groups: Sequence[Group], align: int | None = None) -> Iterator[Cut]:
    """The narrower versions, the widest first, all streams to the same share.

    Args:
        groups: See `width_groups`.
        align: What widths are multiples of; None: 8 where they are wide.
    """
    before = {group.id: group.units for group in groups}
    for share in SHARES:
        kept = {group.id: _rounded(group, share, align) for group in groups}
        if groups and all(kept[name] < before[name] for name in kept):
            before = kept
            more = f" and {len(groups) - 1} like it" if len(groups) > 1 else ""
            yield Cut(f"{groups[0].id}{more}: {kept[groups[0].id]} of {groups[0].units}", kept)


def time_of_width(table: LatencyTable, kept: Mapping[str, int]) -> float | None:
    """The share of the time that is left with these widths and nothing else cut; None where the table does not say.

    Args:
        table: See `measure_table`.
        kept: By group id how wide streams stay.
    """
    ratios = [cut.ratio.median for cut in table.cuts if dict(cut.kept) == dict(kept)]
    return 1 / ratios[0] if ratios else None


def narrowed(
    graph: Graph, scores: Scores, kept: Mapping[str, int], rotate_too: bool | None, data: Data
) -> tuple[Graph, Scores]:
    """The model with its streams turned for these widths where they may turn, and scores of them beside the others.

    Args:
        graph: The analysed model, with its heads turned or as it was.
        scores: Of all that else gets smaller.
        kept: By group id how wide streams stay.
        rotate_too: See `Amount.rotate`.
        data: What directions and channels are judged by.
    """
    groups = [graph.group(name) for name in kept]
    targets = {name: Kept(count) for name, count in kept.items()}
    bases = graph.bases if rotate_too is not False else {}
    wanted = groups_to_rotate(groups, targets, scores.scorers, rotate_too, True)
    turning = {name: count for name, count in wanted.items() if bases.get(name) == ""}
    if turning:
        turned = graph.rotated
        heads = dict.fromkeys(turned.rotation) if turned is not None else {}
        if turned is not None:
            graph = replace(graph, normalized=replace(graph.normalized, model=turned.before), rotated=None)
        graph = rotate(graph, {**heads, **turning}, data, graph.clock)
    streams = graph.score(scores.scorers, data, groups=kept, kept=kept)
    return graph, replace(scores, arrays={**scores.arrays, **streams.arrays}, scorers=streams.scorers)


def _rounded(group: Group, share: float, align: int | None) -> int:
    step = align or (STEP if group.units >= WIDE else 1)
    return max(group.least, 1, round(share * group.units / step) * step)
