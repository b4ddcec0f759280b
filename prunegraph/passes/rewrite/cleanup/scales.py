"""Scaled lengths: integers times or over constants are scaled entry by entry, where most entries stay.

Shrink lets a computed shape go on stating what it stated by scaling one entry of it; where that entry is a constant, or
nobody reads it, nothing is left to compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.runtime.edit import Editor, numbers

_INTEGERS = (np.int64, np.int32)


def push_scales(graph: ir.Graph, sizes: Mapping[str, tuple[Size, ...]]) -> None:
    """Take integer factors and divisors out of vectors, in place, where what they leave alone is all that is read.

    `Concat(a, b, 6) / [1, 1, 2]` becomes `Concat(a, b, 3)`; `Gather(Shape(x) * [1, 2], 0)` becomes
    `Gather(Shape(x), 0)`, and so does a Slice.

    Args:
        graph: The graph.
        sizes: How long the axes of values are, each in every probe.
    """
    editor = Editor(graph)
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in ("Mul", "Div"):
            _into_concat(editor, node, sizes)
        elif node.op_type in ("Gather", "Slice"):
            _past_scale(node)


def _into_concat(editor: Editor, node: ir.Node, sizes: Mapping[str, tuple[Size, ...]]) -> None:
    """Scale the constants that are joined, instead of all that is."""
    scale = _integers(node.inputs[1])
    joined = node.inputs[0].producer() if node.inputs[0] is not None else None
    if scale is None or scale.ndim != 1 or joined is None or joined.op_type != "Concat":
        return
    parts: list[ir.Value | None] = []
    start = 0
    for value in joined.inputs:
        shape = sizes.get(value.name or "") if value is not None else None
        if shape is None or len(shape) != 1 or len(set(shape[0])) != 1:
            return
        factors = scale[start : start + shape[0][0]]
        start += shape[0][0]
        known = _integers(value)
        if np.all(factors == 1):
            parts.append(value)
        elif known is not None:
            scaled = known * factors if node.op_type == "Mul" else known // factors
            parts.append(editor.constant(scaled.astype(known.dtype), f"{node.name}/entry"))
        else:
            return
    old = node.outputs[0]
    here = editor.at(node).before()
    here.replace(old, here.add("Concat", *parts, axis=0, name=f"{joined.name}/scaled", like=old))


def _past_scale(node: ir.Node) -> None:
    """Read entries from before the scaling where it leaves them as they are."""
    scaling = node.inputs[0].producer() if node.inputs[0] is not None else None
    if scaling is None or scaling.op_type not in ("Mul", "Div") or scaling.domain not in ("", "ai.onnx"):
        return
    scale = _integers(scaling.inputs[1])
    read = None if scale is None or scale.ndim != 1 else _read(node, scale)
    if read is not None and np.all(read == 1):
        node.replace_input_with(0, scaling.inputs[0])


def _read(node: ir.Node, vector: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """What a Gather or a Slice with constant operands reads of a vector."""
    operands = [_integers(value) for value in node.inputs[1:]]
    if any(operand is None for operand in operands):
        return None
    if node.op_type == "Gather":
        return np.asarray(vector[operands[0]])
    starts, ends, *rest = (operand.reshape(-1) for operand in operands if operand is not None)
    step = int(rest[1][0]) if len(rest) > 1 else 1
    if starts.size != 1 or step < 1:
        return None
    return vector[int(starts[0]) : int(ends[0]) : step]


def _integers(value: ir.Value | None) -> npt.NDArray[Any] | None:
    array = numbers(value)
    return array if array is not None and array.dtype in _INTEGERS else None
