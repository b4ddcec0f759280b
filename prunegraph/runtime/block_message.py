"""A block of a graph as a model of its own, for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.runtime.cut import GraphBlock
from prunegraph.runtime.session import is_heavy, without_numbers


def block_message(
    model: ir.Model, block: GraphBlock, arrays: Sequence[Mapping[str, Array]]
) -> tuple[bytes, Mapping[str, Array]]:
    """The message of a block, which refers to its weights, and the weights.

    Args:
        model: What it is a block of.
        block: The block.
        arrays: What it is given in every run; types, and lengths where they are the same in all, are taken from there.
    """
    graph = model.graph
    proto = onnx.ModelProto(ir_version=model.ir_version)
    proto.graph.name = graph.name or "block"
    for domain, version in graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    proto.graph.node.extend(ir.serde.serialize_node(node) for node in block.nodes)
    inputs = {value.name: value for value in graph.inputs}
    for name in block.reads:
        if name in inputs:
            proto.graph.input.append(ir.serde.serialize_value(inputs[name]))
        else:
            proto.graph.input.append(_declared(name, [each[name] for each in arrays]))
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in block.makes)
    weights: dict[str, Array] = {}
    for name in block.weights:
        tensor = graph.initializers[name].const_value
        assert tensor is not None, name
        if is_heavy(tensor):
            tensor, weights[name] = without_numbers(tensor, name)
        initializer = ir.serde.serialize_tensor(tensor)
        initializer.name = name
        proto.graph.initializer.append(initializer)
    return proto.SerializeToString(), weights


def _declared(name: str, arrays: Sequence[Array]) -> onnx.ValueInfoProto:
    """An input of a block: of the type that was made, its lengths open where they differ."""
    dtype = arrays[0].dtype
    elem_type = ir.DataType.STRING if dtype.kind == "O" else ir.DataType.from_numpy(dtype)
    shapes = {array.shape for array in arrays}
    if len({len(shape) for shape in shapes}) > 1:
        return onnx.helper.make_tensor_value_info(name, elem_type, None)
    dims = [lengths[0] if len(set(lengths)) == 1 else None for lengths in zip(*shapes, strict=True)]
    return onnx.helper.make_tensor_value_info(name, elem_type, dims)
