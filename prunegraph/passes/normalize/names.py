"""A unique name for every value and node of the main graph, since facts and sites are kept by name."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir


def name_values(graph: ir.Graph) -> None:
    """Fill in missing and repeated names, in place; names that are there and unique stay."""
    taken = {value.name for value in (*graph.inputs, *graph.outputs)} | set(graph.initializers)
    for k, node in enumerate(graph):
        if not node.name:
            node.name = f"{node.op_type}_{k}"
        for j, value in enumerate(node.outputs):
            if value.is_graph_output() and value.name:
                continue
            if not value.name or value.name in taken:
                value.name = _unused(f"{value.name or node.name}/{j}", taken)
            taken.add(value.name)


def name_inner_values(model: ir.Model) -> None:
    """Rename values of bodies that are called as others of the model are, in place.

    Two branches may use one name, each in its own scope, and merged decoders do; shape inference of ONNX keeps what it
    knows of small values by name, and fails there.
    """
    inner = [value for graph in model.graph.subgraphs() for node in graph for value in node.outputs if value.name]
    outer = [value for node in model.graph for value in node.outputs]
    counts = Counter(value.name for value in (*model.graph.inputs, *outer, *inner))
    taken = set(counts) | set(model.graph.initializers)
    for value in inner:
        if counts[value.name] > 1:
            counts[value.name] -= 1
            value.name = _unused(f"{value.name}/inner", taken)
            taken.add(value.name)


def _unused(wish: str, taken: set[str | None]) -> str:
    name, k = wish, 0
    while name in taken:
        name, k = f"{wish}.{k}", k + 1
    return name
