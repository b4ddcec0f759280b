"""Reads of one slot at a constant place: a Gather by one index, a Slice of length one, a Split into slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.relations import IntArray


@dataclass(frozen=True, slots=True)
class SlotRead:
    """Output `output` of a node is slot `slot` of axis `axis` of its first input."""

    axis: int
    output: int
    slot: int


def slots_read(node: ir.Node, lengths: Sequence[int], facts: Facts) -> list[SlotRead]:
    """What a node reads so of its first input; empty where it reads something else.

    Args:
        node: The node.
        lengths: Of the axes of its first input.
        facts: What is known of its other inputs.
    """
    operands = [_integers(value, facts) for value in node.inputs[1:]]
    if node.domain not in ("", "ai.onnx"):
        return []
    if node.op_type == "Gather" and operands and operands[0] is not None and operands[0].size == 1:
        axis = node.attributes.get_int("axis", 0) % len(lengths)
        return [SlotRead(axis, 0, int(operands[0].reshape(-1)[0]) % lengths[axis])]
    if node.op_type == "Split":
        axis = node.attributes.get_int("axis", 0) % len(lengths)
        count = len(node.outputs)
        return [SlotRead(axis, j, j) for j in range(count)] if lengths[axis] == count else []
    if node.op_type == "Slice" and len(operands) >= 3 and all(o is not None and o.size == 1 for o in operands):
        start, end, along = (int(operand.reshape(-1)[0]) for operand in operands[:3] if operand is not None)
        axis = along % len(lengths)
        begin, stop, _ = slice(start, end).indices(lengths[axis])
        return [SlotRead(axis, 0, begin)] if stop - begin == 1 else []
    return []


def _integers(value: ir.Value | None, facts: Facts) -> IntArray | None:
    arrays = facts.integers.get(value.name or "") if value is not None else None
    return arrays[0] if arrays and all(np.array_equal(arrays[0], other) for other in arrays) else None
