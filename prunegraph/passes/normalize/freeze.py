"""Freeze what is static: what all probes agreed on becomes a constant, so that pruning cannot change it.

A scale of `1/sqrt(head_dim)` that a graph computes from a Shape would follow the new head_dim; frozen, it keeps its
value. Weights are left alone: a transposed embedding stays tied, a table of biases stays the small table that it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.ops import traits_of
from prunegraph.arrays import Array
from prunegraph.passes.normalize.certain import alike
from prunegraph.runtime.edit import Editor
from prunegraph.runtime.widen import has_narrow

_NO_WEIGHTS = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING}


def freeze(model: ir.Model, stated: Mapping[str, tuple[Array, ...]]) -> None:
    """Replace every stated value that no probe saw change by an initializer, in place."""
    graph, editor = model.graph, Editor(model.graph)
    narrow = has_narrow(model)
    weights = {name for name, value in graph.initializers.items() if _is_weight(value)}
    for node in list(graph):
        if not traits_of(node).states_lengths and any(v is not None and v.name in weights for v in node.inputs):
            weights.update(value.name or "" for value in node.outputs)
            continue
        for value in node.outputs:
            arrays = stated.get(value.name or "")
            if arrays is None or value.is_graph_output() or not alike(arrays):
                continue
            if narrow and arrays[0].dtype.kind == "f":
                continue  # probes ran in float32, and its type here is not known; it keeps its value all the same
            editor.replace(value, editor.constant(arrays[0], f"{value.name}/frozen"), rename=False)
    RemoveUnusedNodesPass()(model)


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype not in _NO_WEIGHTS and sum(n > 1 for n in tensor.shape.numpy()) > 1
