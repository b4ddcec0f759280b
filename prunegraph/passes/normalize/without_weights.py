"""Replace large weights by ConstantOfShape, so that shapes can be probed without loading them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.runtime.edit import Editor
from prunegraph.runtime.nest_bodies import nest_bodies

LARGE_FROM = 4096
"""Float tensors with at least so many elements are replaced."""


def is_large(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight is too large to be carried along."""
    return (tensor.size >= LARGE_FROM and tensor.dtype.is_floating_point()) or tensor.size >= 1 << 24


def without_weights(model: ir.Model, values: Sequence[str] = (), known: Sequence[str] = ()) -> ir.Model:
    """A copy whose large weights are zeros made on the spot.

    Args:
        model: The model.
        values: Values whose shapes become outputs.
        known: Values that become outputs themselves, after those.
    """
    twin = model.clone()
    graph, editor = twin.graph, Editor(twin.graph)
    by_name = {value.name: value for node in graph for value in node.outputs}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and is_large(tensor):
            if value.is_graph_input():
                graph.inputs.remove(value)  # a default that nobody overrides here
            here = editor.at(graph[0]).before()
            lengths = here.constant(np.array(tensor.shape.numpy(), dtype=np.int64), f"{name}/lengths")
            zeros = here.add("ConstantOfShape", lengths, value=ir.tensor(np.zeros(1, tensor.dtype.numpy())))
            graph.initializers.pop(name)
            editor.replace(value, zeros)
    if values or known:
        end = editor.at_end()
        shapes = [end.add("Shape", by_name[name], name=f"shape/{k}") for k, name in enumerate(values)]
        graph.outputs[:] = [*shapes, *(by_name[name] for name in known)]
    nest_bodies(twin)
    for body in graph.subgraphs():
        for node in body:
            for value in node.outputs:
                value.shape = None  # what an exporter stated of a branch that these sizes do not take
    return twin
