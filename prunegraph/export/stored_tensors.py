"""Whether the tensors of a model file hold what they state: a type, a shape, and numbers for all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx_ir as ir

from prunegraph.errors import ModelError

AXES_LIMIT = 64 if int(np.__version__.partition(".")[0]) >= 2 else 32
"""Axes of an array in numpy."""

_HINT = "the file is damaged, or was written by a faulty tool; export it again"
_FIELDS = {
    "float_data": {"FLOAT": 1, "COMPLEX64": 2},
    "double_data": {"DOUBLE": 1, "COMPLEX128": 2},
    "int64_data": {"INT64": 1},
    "uint64_data": {"UINT64": 1, "UINT32": 1},
    "string_data": {"STRING": 1},
}
"""Fields that hold numbers one by one: for which types, and how many entries an element takes; int32_data all else."""


def check_tensors(model: onnx.ModelProto) -> None:
    """Check every tensor of a model; external ones as far as the model file goes.

    Raises:
        ModelError: A tensor has an unknown type, an impossible shape, or more or fewer numbers than its shape.
    """
    for tensor in _of_graphs([model.graph]):
        _check(tensor)
    for function in model.functions:
        for tensor in _of_nodes(function.node):
            _check(tensor)


def _check(tensor: onnx.TensorProto) -> None:
    what = f"the tensor {tensor.name!r}"
    if any(isinstance(text, bytes) for text in _texts(tensor)):  # so protobuf hands out what does not decode
        raise ModelError(f"{what} has a name, a note or a place that is no text in UTF-8", hint=_HINT)
    if len(tensor.dims) > AXES_LIMIT:
        hint = f"numpy holds at most {AXES_LIMIT}; {_HINT}"
        raise ModelError(f"{what} is stated to have {len(tensor.dims)} axes", hint=hint)
    if any(length < 0 for length in tensor.dims):
        raise ModelError(f"{what} is stated to have the shape {list(tensor.dims)}", hint=_HINT)
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise ModelError(f"{what} has the unknown type {tensor.data_type}", hint=_HINT) from error
    if dtype is ir.DataType.UNDEFINED:
        raise ModelError(f"{what} has no type", hint=_HINT)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    size = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        need, there, unit = _raw_length(dtype, size, what), len(tensor.raw_data), "bytes"
    else:
        field, each = _field(dtype)
        need, there, unit = math.ceil(size * each), len(getattr(tensor, field)), f"entries of {field}"
    if need != there:
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        raise ModelError(f"{what} holds {there} {unit}, and its shape {shape} of {dtype} needs {need}", hint=_HINT)


def _texts(tensor: onnx.TensorProto) -> Iterator[object]:
    yield from (tensor.name, tensor.doc_string)
    for entry in (*tensor.external_data, *tensor.metadata_props):
        yield from (entry.key, entry.value)


def _raw_length(dtype: ir.DataType, size: int, what: str) -> int:
    """Bytes of so many elements; types below a byte are packed."""
    if dtype is ir.DataType.STRING:
        raise ModelError(f"{what} holds texts as raw bytes", hint=_HINT)
    return math.ceil(size * dtype.bitwidth / 8)


def _field(dtype: ir.DataType) -> tuple[str, float]:
    """Where numbers of a type lie one by one, and how many entries an element takes."""
    for field, types in _FIELDS.items():
        if dtype.name in types:
            return field, types[dtype.name]
    return "int32_data", 1 if dtype.bitwidth >= 8 else dtype.bitwidth / 8


def _of_graphs(graphs: Iterable[onnx.GraphProto]) -> Iterator[onnx.TensorProto]:
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()),
                *attribute.sparse_tensors,
            ):
                yield from (sparse.values, sparse.indices)
            yield from _of_graphs([*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs])
