"""Rotate: heads, and pre-norm residual streams, are turned so that the last dims contribute least; nothing changes."""

from prunegraph.passes.rotate.groups import (
    Energy,
    Rotated,
    groups_to_rotate,
    reasons,
    rotate_as_planned,
    rotate_groups,
)
from prunegraph.passes.rotate.plan import from_plan, to_plan
from prunegraph.passes.rotate.prove import rotation_error, tolerance
from prunegraph.passes.rotate.rotate import Rotation, Turned
from prunegraph.passes.rotate.sites import Stays, Turn, sites
from prunegraph.passes.rotate.stream_sites import StreamTurn, stream_sites

__all__ = [
    "Energy",
    "Rotated",
    "Rotation",
    "Stays",
    "StreamTurn",
    "Turn",
    "Turned",
    "from_plan",
    "groups_to_rotate",
    "reasons",
    "rotate_as_planned",
    "rotate_groups",
    "rotation_error",
    "sites",
    "stream_sites",
    "to_plan",
    "tolerance",
]
