"""One copy per use of small constants, since exporters merge equal ones and so tie layers that have nothing in common.

Weights with two axes or more stay shared, however small: there the sharing is real (tied embeddings). A folded
table (cos and sin, a relative position bias) is copied while it is small beside the model. Tensors are immutable,
so a copy costs nothing before it is cut.
"""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.read_weight import is_uniform
from prunegraph.runtime.edit import Editor

TABLE_SHARE = 0.01
"""Largest part of a model's bytes that a table may have to be copied."""


def copy_constants(graph: ir.Graph) -> None:
    """Give every use of a small or uniform constant a value of its own, in place."""
    total, editor = bytes_of_constants(graph), Editor(graph)
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output():
            continue
        uses = [(node, index) for node, index in value.uses() if node.graph is graph]
        if len(uses) < 2 or not (_small(tensor) or is_table(tensor, uses, total)):
            continue
        for k, (node, index) in enumerate(uses[1:], 1):
            node.replace_input_with(index, editor.copy_constant(value, f"{name}/use{k}"))


def _small(tensor: ir.TensorProtocol) -> bool:
    if sum(n > 1 for n in tensor.shape.numpy()) <= 1:
        return True
    if tensor.size > 1 << 22 or tensor.dtype == ir.DataType.STRING:
        return False
    return is_uniform(tensor)


def bytes_of_constants(graph: ir.Graph) -> int:
    """How large a model is."""
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return sum(tensor.nbytes for tensor in tensors if tensor.dtype is not ir.DataType.STRING)


def is_table(tensor: ir.TensorProtocol, uses: list[tuple[ir.Node, int]], total: int) -> bool:
    """Whether a constant only ever meets activations slot by slot: no weight, whatever its rank."""
    traits = [traits_of(node) for node, _ in uses]
    weight = any(trait.contracts or trait.permutes or any(lookup.rows for lookup in trait.looks_up) for trait in traits)
    return tensor.dtype is not ir.DataType.STRING and tensor.nbytes <= TABLE_SHARE * total and not weight
