"""Provenance: what Normalize tells Cleanup about what it took apart, in `meta`, never in a file."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunegraph.arrays import Mask

_PART, _SLOTS = "prunegraph.part", "prunegraph.slots"


def mark_part(part: ir.Node | ir.Value, whole: str, slot: int) -> None:
    """Say that a node or an initializer makes or holds one slot of what `whole` made or held."""
    part.meta[_PART] = (whole, slot)


def part_of(part: ir.Node | ir.Value) -> tuple[str, int] | None:
    """The name of the whole, and which slot of it this is; None for what was never taken apart."""
    whole_and_slot: tuple[str, int] | None = part.meta.get(_PART)
    return whole_and_slot


def mark_slots(part: ir.Value, masks: Sequence[Mask | None]) -> None:
    """Record which positions of the whole an initializer holds, along every axis; None where it holds all."""
    part.meta[_SLOTS] = tuple(masks)


def slots_of(part: ir.Value) -> tuple[Mask | None, ...] | None:
    """Which positions of the whole a part holds, along every axis; None for what was never taken apart."""
    masks: tuple[Mask | None, ...] | None = part.meta.get(_SLOTS)
    return masks
