"""A model in float32, whatever its number format: ONNX Runtime has no bfloat16 on most CPUs."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import late, read_weight
from prunegraph.arrays import Array

_NARROW = {ir.DataType.BFLOAT16, ir.DataType.FLOAT16}

_LATE_FROM = 4096
"""Weights of at least so many numbers are widened when somebody reads them, and each time anew."""


def has_narrow(model: ir.Model) -> bool:
    """Whether any value of the model is float16 or bfloat16."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    return any(value.dtype in _NARROW for value in values) or any(
        _narrow_attribute(a) for node in model.graph.all_nodes() for a in node.attributes.values()
    )


def widened(model: ir.Model) -> ir.Model:
    """The model in float32, or the model itself if it has no narrower floats.

    ONNX Runtime has no bfloat16 on most CPUs, and float16 rounds away the differences that a comparison looks for.
    Large weights are widened where they are read: what only looks at shapes reads none.
    """
    if not has_narrow(model):
        return model
    wide = model.clone()
    for graph in wide.graphs():
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            if value.dtype in _NARROW:
                value.type = ir.TensorType(ir.DataType.FLOAT)  # clones share type objects: never change one in place
        for value in graph.initializers.values():
            if value.dtype in _NARROW and value.const_value is not None:
                value.const_value = _widen_tensor(value.const_value, value.name)
                value.type = ir.TensorType(ir.DataType.FLOAT)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if _narrow_attribute(attribute):
                    node.attributes[name] = _widen_attribute(attribute)
    return wide


def _widen_tensor(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
    if tensor.size < _LATE_FROM:
        return ir.tensor(tensor.numpy().astype(np.float32), name=name)
    return late(lambda: read_weight(tensor).astype(np.float32), ir.DataType.FLOAT, tensor.shape.numpy(), name)


def _narrow_attribute(attribute: ir.Attr) -> bool:
    if attribute.type == ir.AttributeType.INT and attribute.name in ("to", "dtype", "stash_type", "output_dtype"):
        return attribute.as_int() in _NARROW
    return attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _NARROW


def _widen_attribute(attribute: ir.Attr) -> ir.Attr:
    if attribute.type == ir.AttributeType.INT:
        return ir.AttrInt64(attribute.name, int(ir.DataType.FLOAT))
    return ir.AttrTensor(attribute.name, ir.tensor(attribute.as_tensor().numpy().astype(np.float32)))


def widened_feeds(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds for a widened model."""
    narrow = (np.float16, ml_dtypes.bfloat16)
    return {name: array.astype(np.float32) if array.dtype in narrow else array for name, array in feeds.items()}
