"""Blank weights: weights do not decide shapes, so shapes are learnt without loading any."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.passes.rewrite.constants import add_constant

BLANK_FROM = 4096
"""Float tensors with at least so many elements are blank."""


def is_blank(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight is too large to be carried along."""
    return (tensor.size >= BLANK_FROM and tensor.dtype.is_floating_point()) or tensor.size >= 1 << 24


def blanked(model: ir.Model, values: Sequence[str] = (), known: Sequence[str] = ()) -> ir.Model:
    """A copy whose large weights are zeros made on the spot.

    Args:
        model: The model.
        values: Values whose shapes become outputs.
        known: Values that become outputs themselves, after those.
    """
    twin = model.clone()
    graph = twin.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and is_blank(tensor):
            if value.is_graph_input():
                graph.inputs.remove(value)  # a default that nobody overrides here
            lengths = add_constant(graph, f"{name}/lengths", np.array(tensor.shape.numpy(), dtype=np.int64))
            zero = ir.tensor(np.zeros(1, tensor.dtype.numpy()))
            node = ir.node("ConstantOfShape", [lengths], {"value": zero}, num_outputs=1)
            graph.initializers.pop(name)
            value.replace_all_uses_with(node.outputs[0])
            node.outputs[0].name = name
            graph.insert_before(next(iter(graph)), node)
    if values or known:
        mine = {value.name: value for node in graph for value in node.outputs}
        shapes = [ir.node("Shape", [mine[name]], num_outputs=1) for name in values]
        taken = {*mine, *graph.initializers, *(value.name for value in graph.inputs)}
        free = (name for k in itertools.count() if (name := f"shape/{k}") not in taken)
        for name, node in zip(free, shapes, strict=False):
            node.outputs[0].name = name
        graph.extend(shapes)
        graph.outputs[:] = [node.outputs[0] for node in shapes] + [mine[name] for name in known]
    return twin
