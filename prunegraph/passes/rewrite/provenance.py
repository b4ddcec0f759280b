"""Provenance: what Normalize tells Cleanup about what it took apart, in `meta`, never in a file."""

from __future__ import annotations

import onnx_ir as ir

_PART = "prunegraph.part"


def mark_part(part: ir.Node | ir.Value, whole: str, slot: int) -> None:
    """Say that a node or an initializer makes or holds one slot of what `whole` made or held."""
    part.meta[_PART] = (whole, slot)


def part_of(part: ir.Node | ir.Value) -> tuple[str, int] | None:
    """The name of the whole, and which slot of it this is; None for what was never taken apart."""
    whole_and_slot: tuple[str, int] | None = part.meta.get(_PART)
    return whole_and_slot
