"""Freeze what is static: integers and scales that both probes saw alike become constants, so that pruning cannot change them.

A scale of `1/sqrt(head_dim)` that a graph computes from a Shape would follow the new head_dim; frozen, it keeps its value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.observe.session import Array
from prunegraph.passes.constants import add_constant


def freeze(model: ir.Model, held: Mapping[str, tuple[Array, ...]]) -> None:
    """Replace every stated value that no probe saw change by an initializer, in place."""
    graph = model.graph
    for node in list(graph):
        for value in node.outputs:
            arrays = held.get(value.name or "")
            if arrays is None or value.is_graph_output() or not _same(arrays):
                continue
            value.replace_all_uses_with(add_constant(graph, f"{value.name}/frozen", arrays[0]))
    RemoveUnusedNodesPass()(model)


def _same(arrays: tuple[Array, ...]) -> bool:
    return all(a.shape == arrays[0].shape and np.array_equal(a, arrays[0], equal_nan=a.dtype.kind == "f") for a in arrays)
