"""New constants in a graph, under names that nobody has yet, and new values in the place of old ones."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy.typing as npt
import onnx_ir as ir

_taken: WeakKeyDictionary[ir.Graph, set[str]] = WeakKeyDictionary()


def unused(graph: ir.Graph, wish: str) -> str:
    """The name wished for; where it is taken, as in a model that was pruned before, a number stands behind it."""
    if graph not in _taken:
        values = (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs))
        _taken[graph] = {each.name or "" for each in (*graph, *values)}
    taken = _taken[graph]
    name, k = wish, 1
    while name in taken or name in graph.initializers:
        k += 1
        name = f"{wish}.{k}"
    taken.add(name)
    return name


def add_constant(graph: ir.Graph, wish: str, array: npt.ArrayLike) -> ir.Value:
    """Register an initializer, named as wished or, where that is taken, with a number behind it."""
    name = unused(graph, wish)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def numbers(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """What an initializer holds; None for any other value."""
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return None if tensor is None else tensor.numpy()


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let a value be read in place of another, by nodes and as an output of the graph, under its name."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = f"{old.name}/before", old.name
