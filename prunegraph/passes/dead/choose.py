"""The selection that removes every dead unit, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.arrays import Mask
from prunegraph.passes.choose.whole_layers import with_whole
from prunegraph.passes.dead.units import dead_units


def select_dead(model: ir.Model, analysis: Analysis, among: Collection[str]) -> Selection:
    """What stays where every dead unit goes, and whole groups that are dead with the sub-blocks around them.

    Rows of a group keep equal numbers, so that as many go from each as are dead in the one with the fewest.

    Args:
        model: The normalized model.
        analysis: Its analysis.
        among: The ids of groups that may get smaller.
    """
    dead = {name: mask for name, mask in dead_units(model, analysis).items() if name in among}
    groups: Mapping[str, Group] = {group.id: group for group in analysis.groups}
    whole = [name for name, mask in dead.items() if mask.all()]
    keep = {name: _kept(groups[name], mask) for name, mask in dead.items()}
    selection = Selection({name: mask for name, mask in keep.items() if not mask.all()})
    return with_whole(selection, model, analysis, whole, 1.0)


def _kept(group: Group, dead: Mask) -> Mask:
    count = min(int(dead.sum(axis=-1).min()), group.units - max(group.least, 1))
    first = np.cumsum(dead, axis=-1) <= count
    return np.asarray(~(dead & first))
