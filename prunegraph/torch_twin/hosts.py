"""Find values that are computed on the CPU: lengths and what follows from them, so that no device waits."""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of


def constant_of(value: ir.Value) -> ir.TensorProtocol | None:
    """What an initializer or a Constant node holds."""
    node = value.producer()
    if node is not None:
        return ir.convenience.get_const_tensor(value) if node.op_type == "Constant" else None
    return value.const_value if value.is_initializer() else None


class Hosts:
    """The values of a graph that follow from lengths and small constants alone."""

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes: set[ir.Node] = set()
        self.values: set[ir.Value | None] = set()
        for node in graph:
            if traits_of(node).states_lengths or self._follows(node):
                self.nodes.add(node)
                self.values.update(node.outputs)

    def is_host(self, node: ir.Node) -> bool:
        """Whether the node is computed on the CPU from operands there."""
        return node in self.nodes and not traits_of(node).states_lengths

    def _follows(self, node: ir.Node) -> bool:
        inputs = [value for value in node.inputs if value is not None]
        plain = all(a.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
        return bool(inputs) and plain and all(value in self.values or is_number(value) for value in inputs)


def is_number(value: ir.Value) -> bool:
    """An integer constant, or one number."""
    tensor = constant_of(value)
    return tensor is not None and (tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL or tensor.size == 1)
