"""Give `MultiHeadAttention` queries, keys and values apart: packed in one, ONNX Runtime cannot run it on a CPU.

Apart they run anywhere, so that what is cut of them is proven, and have widths and bases of their own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunegraph.runtime.edit import Editor

_MICROSOFT = "com.microsoft"

RANK, PARTS_AXIS = 5, 3
"""Packed operands are `[batch, positions, heads, parts, width]`."""


def unpack_attention(model: ir.Model) -> ir.Model:
    """A copy of a model in which no `MultiHeadAttention` is given several of its operands in one; the model if none is.

    It computes the same. Products that make packed operands are taken apart later, see `split_projections`.
    """
    if not any(_first_packed(node) is not None for node in model.graph):
        return model
    apart = model.clone()
    apart.meta.update(model.meta)
    editor = Editor(apart.graph)
    for node in list(apart.graph):
        first = _first_packed(node)
        packed = node.inputs[first] if first is not None else None
        if first is None or packed is None:
            continue
        node.resize_inputs(max(3, len(node.inputs)))
        here = editor.at(node).before()
        for part, operand in enumerate(range(first, 3)):
            number = here.constant(np.array(part, dtype=np.int64))
            chosen = here.add("Gather", packed, number, axis=PARTS_AXIS)
            flat = here.add("Reshape", chosen, here.constant(np.array([0, 0, -1], dtype=np.int64)))
            node.replace_input_with(operand, flat)
    return apart


def _first_packed(node: ir.Node) -> int | None:
    """Which operand holds all that are left out behind it: the queries, or the keys."""
    if (node.domain, node.op_type) != (_MICROSOFT, "MultiHeadAttention"):
        return None
    queries, keys, values = (*node.inputs[:3], None, None, None)[:3]
    first, packed = (1, keys) if keys is not None else (0, queries)
    if packed is None or values is not None or (packed.shape is not None and len(packed.shape) != RANK):
        return None
    return first
