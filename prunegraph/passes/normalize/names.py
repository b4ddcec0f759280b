"""A unique name for every value and node of the main graph, since facts and sites are kept by name."""

from __future__ import annotations

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


def _unused(wish: str, taken: set[str | None]) -> str:
    name, k = wish, 0
    while name in taken:
        name, k = f"{wish}.{k}", k + 1
    return name
