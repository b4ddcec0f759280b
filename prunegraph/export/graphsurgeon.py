"""Convert from and to an `onnx_graphsurgeon.Graph`."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, TypeGuard

import onnx
import onnx_ir as ir

from prunegraph.errors import ModelError, first_line
from prunegraph.export.onnx_file import load

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def is_graph(source: object) -> TypeGuard[gs.Graph]:
    """Whether this is a graphsurgeon graph; graphs bring their package along, so it is not imported to find out."""
    package = sys.modules.get("onnx_graphsurgeon")
    return package is not None and isinstance(source, package.Graph) and not isinstance(source, package.Function)


def read_graph(graph: gs.Graph) -> ir.Model:
    """Read a graph as `prunegraph.export.onnx_file.load` reads a model; the graph given is not changed.

    Nodes may stand in any order.

    Raises:
        ModelError: The graph cannot be exported to ONNX, or the ONNX checker rejects it.
    """
    import onnx_graphsurgeon as gs

    try:
        proto = gs.export_onnx(_own(graph).toposort())
    except Exception as error:  # graphsurgeon raises whatever went wrong, and its own exception is a bare one
        raise ModelError(
            f"onnx_graphsurgeon cannot export the graph: {first_line(error)}",
            hint="onnx_graphsurgeon.export_onnx(graph) must work; every graph input and output needs a dtype",
        ) from error
    return load(proto)


def to_graph(model: ir.Model) -> gs.Graph:
    """Give a model as a graphsurgeon graph; weights in data files are read.

    graphsurgeon has no place for the metadata of nodes and of the model: it is lost on the way.
    """
    import onnx_graphsurgeon as gs

    return gs.import_onnx(ir.to_proto(ir.external_data.load_to_model(model.clone())))


def _own(graph: gs.Graph) -> gs.Graph:
    """A copy that shares nothing but the values of weights with the caller's graph.

    Exporting writes import domains into a graph and its functions, and names into the tensors that back its constants.
    """
    import onnx_graphsurgeon as gs

    own = graph.copy()
    own.import_domains = _opsets(graph)
    own.producer_name, own.producer_version = graph.producer_name, graph.producer_version
    own.functions = [_own_function(function) for function in graph.functions]
    for tensor in own.tensors().values():
        if isinstance(tensor, gs.Constant):
            _own_values(tensor)
    return own


def _own_function(function: gs.Function) -> gs.Function:
    own = function.copy()
    own.import_domains = list(function.import_domains or ())
    return own


def _own_values(constant: gs.Constant) -> None:
    """Give a constant that was renamed a proto of its own: the new name would be written into the one it has."""
    values = constant._values
    proto = getattr(values, "tensor", None)
    if isinstance(proto, onnx.TensorProto) and proto.name != constant.name:
        constant._values = copy.copy(values)
        constant._values.tensor = copy.deepcopy(proto)


def _opsets(graph: gs.Graph) -> list[onnx.OperatorSetIdProto]:
    """The opsets of a graph, and version 1 of every other domain that its nodes use."""
    opsets = {"": graph.opset}
    for entry in graph.import_domains or ():
        opsets["" if entry.domain == "ai.onnx" else entry.domain] = entry.version
    for part in [graph, *graph.subgraphs(recursive=True)]:
        for node in part.nodes:
            opsets.setdefault(node.domain or "", 1)
    return [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
