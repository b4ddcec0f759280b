"""Convert whatever holds a network into an ONNX model that is safe to change, and back into the kind that was given."""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx_ir as ir

from prunegraph.errors import UsageError
from prunegraph.export import graphsurgeon, torch_module
from prunegraph.export.onnx_file import load

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    import torch

ModelLike: TypeAlias = (
    "str | os.PathLike[str] | onnx.ModelProto | ir.Model | gs.Graph | torch.nn.Module | torch.export.ExportedProgram"
)
Model: TypeAlias = "onnx.ModelProto | ir.Model | gs.Graph"


class Kind(Enum):
    """What a model in memory is."""

    PROTO = "onnx.ModelProto"
    IR = "onnx_ir.Model"
    GRAPHSURGEON = "onnx_graphsurgeon.Graph"


def open_source(source: ModelLike, example_inputs: Any = None, dynamic_shapes: Any = None) -> ir.Model:
    """Read a model that may be changed freely: what was given never is.

    Args:
        source: A path to an ONNX file, an `onnx.ModelProto`, an `onnx_ir.Model`, an `onnx_graphsurgeon.Graph`, a
            `torch.nn.Module` or a `torch.export.ExportedProgram`.
        example_inputs: Arguments to trace a module with; see `prunegraph.export.torch_module.read_torch`.
        dynamic_shapes: Which axes of these vary.

    Raises:
        ModelError: The model cannot be read, traced or translated, or the ONNX checker rejects it.
        UsageError: The source is none of these, or the other arguments do not belong to it.
        MissingExtra: A module is given where onnxscript is not installed.
    """
    if torch_module.is_torch(source):
        return torch_module.read_torch(source, example_inputs, dynamic_shapes)
    for name, given in (("example_inputs", example_inputs), ("dynamic_shapes", dynamic_shapes)):
        if given is not None:
            raise UsageError(
                f"{name} belongs to a torch module, not to {type(source).__name__}",
                hint="an exported model states its inputs itself; leave it out",
            )
    if graphsurgeon.is_graph(source):
        return graphsurgeon.read_graph(source)
    if not isinstance(source, (str, os.PathLike, onnx.ModelProto, ir.Model)):
        raise UsageError(
            f"cannot read a model from {type(source).__name__}",
            hint="give the path of an ONNX file, an onnx.ModelProto, an onnx_ir.Model, an onnx_graphsurgeon.Graph, "
            "a torch.nn.Module or a torch.export.ExportedProgram",
        )
    return load(source)


def kind_of(source: ModelLike) -> Kind:
    """The kind in which a model is given back for this source."""
    if isinstance(source, ir.Model):
        return Kind.IR
    return Kind.GRAPHSURGEON if graphsurgeon.is_graph(source) else Kind.PROTO


def in_kind(model: ir.Model, kind: Kind) -> Model:
    """The model as an object of this kind, which needs no file: weights that lie in one are read when asked for."""
    model = _self_contained(model)
    if kind is Kind.IR:
        return model
    return graphsurgeon.to_graph(model) if kind is Kind.GRAPHSURGEON else ir.to_proto(model)


def _self_contained(model: ir.Model) -> ir.Model:
    """The model, or a copy in which no tensor is a reference to a file."""
    if not any(isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()):
        return model
    model = model.clone()
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = _read_late(value.const_value)
    return model


def _read_late(tensor: ir.ExternalTensor) -> ir.LazyTensor:
    shape, metadata = ir.Shape(tensor.shape), dict(tensor.metadata_props)
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name),
        tensor.dtype,
        shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=metadata,
    )
