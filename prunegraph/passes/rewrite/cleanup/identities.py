"""Remove Identity nodes, but for those through which a graph or the body of a node gives out a value of another."""

from __future__ import annotations

import onnx_ir as ir


def remove_identities(model: ir.Model) -> None:
    """Let what an Identity gives be read where it is made, in place.

    A body may hand out an outer value only through a node of its own, and an input of a graph is no output of it.
    """
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "Identity" and node.domain in ("", "ai.onnx"):
                _remove(graph, node)


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    source, copy = node.inputs[0], node.outputs[0]
    if source is None:
        return
    if copy.is_graph_output():
        maker = source.producer()
        if maker is None or maker.graph is not graph or source.is_graph_output():
            return
        source.name, copy.name = copy.name, None
        source.shape = copy.shape or source.shape  # what a graph says of its outputs, names of dims included
    source.shape, source.type = source.shape or copy.shape, source.type or copy.type
    source.metadata_props.update({k: v for k, v in copy.metadata_props.items() if k not in source.metadata_props})
    copy.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
