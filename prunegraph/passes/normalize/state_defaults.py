"""State default attributes that ONNX's shape inference does not fill in by itself."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def state_defaults(model: ir.Model) -> None:
    """Write the defaults of attributes of ops whose shapes follow from the body of a function alone, in place.

    ONNX infers through such a body with the attributes that a node states, and fails at one that it leaves to its
    default: MeanVarianceNormalization without `axes`.
    """
    for node in model.graph.all_nodes():
        schema = _schema(node, model)
        if schema is None or schema.has_type_and_shape_inference_function:
            continue
        for name, attribute in schema.attributes.items():
            if name not in node.attributes and attribute.default_value.name:
                node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)


def _schema(node: ir.Node, model: ir.Model) -> onnx.defs.OpSchema | None:
    """What ONNX says of an op; None for ops of others."""
    version = model.opset_imports.get(node.domain or "")
    try:
        return None if version is None else onnx.defs.get_schema(node.op_type, version, node.domain or "")
    except onnx.defs.SchemaError:
        return None
