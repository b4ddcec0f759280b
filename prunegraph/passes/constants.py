"""New constants in a graph, under names that nobody has yet."""

from __future__ import annotations

import numpy.typing as npt
import onnx_ir as ir


def add_constant(graph: ir.Graph, wish: str, array: npt.ArrayLike) -> ir.Value:
    """Register an initializer, named as wished or, where that is taken, with a number behind it."""
    name, k = wish, 1
    while name in graph.initializers:
        k += 1
        name = f"{wish}.{k}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value
