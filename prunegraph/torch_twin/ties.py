"""Find tied weights that a file holds twice: exporters write them once per use, transposed for some."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.equal_weights import equal_weights

SMALL = 64
"""Matrices of fewer numbers may be equal by chance."""

Tie = tuple[str, bool]
"""The weight that stands for another, and whether transposed."""


def tie(graph: ir.Graph) -> dict[str, Tie]:
    """Let equal weights be one initializer, in place, and find the transposed ones.

    Returns:
        By name of a weight the other one that holds its numbers.
    """
    ties: dict[str, Tie] = {}
    for name, kept in equal_weights(graph).items():
        graph.initializers.pop(name).replace_all_uses_with(graph.initializers[kept])
        ties[name] = (kept, False)
    alike: dict[tuple[object, ...], list[ir.Value]] = defaultdict(list)
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or len(tensor.shape) != 2 or tensor.size <= SMALL:
            continue
        rows, columns = (int(n) for n in tensor.shape.numpy())
        first = next((other for other in alike[tensor.dtype, columns, rows] if _transposed(other, value)), None)
        if first is None:
            alike[tensor.dtype, rows, columns].append(value)
        else:
            ties[name] = (first.name or "", True)
    return ties


def _transposed(a: ir.Value, b: ir.Value) -> bool:
    """Whether one is the other turned; their first numbers tell most apart."""
    assert a.const_value is not None and b.const_value is not None
    x, y = a.const_value.numpy(), b.const_value.numpy()
    if not np.array_equal(x[0], y[:, 0]) or np.all(x[0] == x[0, 0]):
        return False
    return bool(np.array_equal(x.T, y))
