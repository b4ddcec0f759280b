"""Whole layers: which sub-blocks go altogether, attention, FFN or convolutions, as far as the graph lets them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.names import matches
from prunegraph.analysis.selection import Selection
from prunegraph.observe.attention_sites import HEAD_KINDS
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups

logger = logging.getLogger(__name__)

WHOLE_KINDS = (*HEAD_KINDS, "ffn")
"""Kinds of groups without which the rest of a model makes sense: what they add up to is a sub-block."""

DROPPED_KINDS = (*WHOLE_KINDS, "channel")
"""Kinds of groups that go whole where a caller says so.

Without the channels inside of it, a residual block adds nothing that hangs on the input; those that nothing goes around
cannot go.
"""


def names_of(group: Group) -> tuple[str, str, str]:
    """What a pattern may match to drop a group: its id, its scope, and the scope with the kind before it."""
    return *group.names, f"{group.kind}.{group.scope}"


def dropped(groups: Iterable[Group], patterns: Sequence[str]) -> list[Group]:
    """The groups of heads, FFN neurons and channels that match a pattern, see `names_of`."""
    return [group for group in groups if group.kind in DROPPED_KINDS and matches(names_of(group), patterns)]


def with_whole(
    selection: Selection, model: ir.Model, analysis: Analysis, drop: Collection[str], threshold: float
) -> Selection:
    """The selection, with nothing left of the groups that shall go whole.

    A group that cannot go whole, because its result is needed in a shape that only it has, keeps what the selection
    keeps of it; the log says why.

    Args:
        selection: What stays, at least one unit of every group.
        model: The normalized model.
        analysis: Its analysis.
        drop: Ids of groups that go whole.
        threshold: So do groups of heads of which the selection removes more than this share.
    """
    groups = {group.id: group for group in analysis.groups}
    names = [name for name in groups if name in drop]
    for name, mask in selection.keep.items():
        if groups[name].kind in HEAD_KINDS and name not in drop and 1 - mask.mean() > threshold:
            names.append(name)
    while names:
        refused = _refused(names, groups, model, analysis)
        if not refused:
            nothing = {name: np.zeros(groups[name].shape, dtype=bool) for name in names}
            return Selection({**selection.keep, **nothing})
        for name, why in _to_blame(refused, groups, model, analysis).items():
            names.remove(name)
            logger.warning("%s cannot go whole and keeps a unit: %s", name, why)
    return selection


def _refused(
    names: Sequence[str], groups: Mapping[str, Group], model: ir.Model, analysis: Analysis
) -> Mapping[str, str]:
    """Which of some groups cannot go whole together, and why."""
    nothing = {name: np.zeros(groups[name].shape, dtype=bool) for name in names}
    refused = remove_whole_groups(model, analysis.solution, Selection(nothing).keeps(analysis.groups)).refused
    return {name: refused[groups[name].dim] for name in names if groups[name].dim in refused}


def _to_blame(
    refused: Mapping[str, str], groups: Mapping[str, Group], model: ir.Model, analysis: Analysis
) -> Mapping[str, str]:
    """Those that cannot go by themselves either: where they go too, everything behind them would be constant."""
    if len(refused) == 1:
        return refused
    alone: dict[str, str] = {}
    for name in refused:
        alone |= _refused([name], groups, model, analysis)
    return alone or refused
