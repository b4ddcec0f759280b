"""Blocks: groups whose time hangs together, such as the heads of an attention and the dims inside of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed
from prunegraph.passes.choose.budget import cost
from prunegraph.passes.choose.whole_layers import WHOLE_KINDS
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups


@dataclass(frozen=True, slots=True)
class TimedBlock:
    """One item of a plan.

    Attributes:
        main: The group that counts the units.
        inner: Groups of dims inside of these units; what they save goes with the number of units.
        least: How many units of the main group stay at least, 0 where it can go whole.
        macs: The share of the model's multiply-adds that goes with the main group.
    """

    main: Group
    inner: tuple[Group, ...]
    least: int
    macs: float

    @property
    def groups(self) -> tuple[Group, ...]:
        """The main group and those inside."""
        return self.main, *self.inner

    @property
    def smallest(self) -> dict[str, int]:
        """By group id as few units as may stay."""
        return {self.main.id: self.least} | ({each.id: each.least for each in self.inner} if self.least else {})

    @property
    def likeness(self) -> tuple[object, ...]:
        """What blocks that take the same time have in common."""
        inner = tuple((group.kind, group.shape) for group in self.inner)
        return self.main.kind, self.main.shape, inner, self.least, round(self.macs, 5)


def blocks_of(analyzed: Analyzed, among: Collection[str]) -> tuple[TimedBlock, ...]:
    """The blocks that groups make up, in the order of the graph.

    Args:
        analyzed: The model.
        among: The ids of the groups that may get smaller.
    """
    groups = [group for group in analyzed.analysis.groups if group.id in among]
    dims = {group.dim for group in groups}
    inner: dict[int, list[Group]] = defaultdict(list)
    mains = []
    for group in groups:
        holders = [dim for dim in group.outer if dim in dims]
        if holders:
            inner[holders[0]].append(group)
        else:
            mains.append(group)
    left = cost(analyzed.analysis, analyzed.normalized)
    refused = _refused(analyzed, [group for group in mains if group.kind in WHOLE_KINDS])

    def block(group: Group) -> TimedBlock:
        whole = group.kind in WHOLE_KINDS and group.least <= 1 and group.dim not in refused
        share = 1 - left({group.id: group.least})["macs"]
        return TimedBlock(group, _nested(group, inner), 0 if whole else group.least, share)

    return tuple(block(group) for group in mains)


def _nested(group: Group, inner: Mapping[int, Sequence[Group]]) -> tuple[Group, ...]:
    """Everything inside of a group, however deep."""
    return tuple(each for child in inner.get(group.dim, ()) for each in (child, *_nested(child, inner)))


def _refused(analyzed: Analyzed, groups: Sequence[Group]) -> Collection[int]:
    """Dims of the groups that cannot go whole."""
    nothing = {group.id: np.zeros(group.shape, dtype=bool) for group in groups}
    if not nothing:
        return ()
    keeps = Selection(nothing).keeps(analyzed.analysis.groups)
    return remove_whole_groups(analyzed.normalized.model, analyzed.analysis.solution, keeps).refused


def units_of(blocks: Sequence[TimedBlock], others: Sequence[Group] = ()) -> dict[str, int]:
    """By group id how many units the whole model has, of blocks and of other groups."""
    return {group.id: group.units for group in (*(each for block in blocks for each in block.groups), *others)}


def alike(blocks: Sequence[TimedBlock]) -> list[list[TimedBlock]]:
    """The blocks, those together that take the same time."""
    classes: dict[tuple[object, ...], list[TimedBlock]] = defaultdict(list)
    for each in blocks:
        classes[each.likeness].append(each)
    return list(classes.values())
