"""A model whose inputs have one size: what follows from lengths alone is a constant there."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from prunegraph.passes.normalize.certain import certain
from prunegraph.passes.normalize.freeze import freeze
from prunegraph.passes.normalize.names import name_values
from prunegraph.passes.normalize.probe import probe


def freeze_sizes(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> ir.Model:
    """A copy with inputs and outputs of these shapes, in which nothing computes lengths any more.

    Converters of small runtimes take no Shape, and some runtimes no Reshape to a shape that is computed.

    Args:
        model: It is not changed.
        shapes: Of every input and output, by name.
    """
    model = model.clone()
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name is not None and value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    for step in (InlinePass(), LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)):
        step(model)
    name_values(model.graph)
    freeze(model, certain(model.graph, probe(model).held))
    RemoveUnusedNodesPass()(model)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # what an exporter stated of other sizes
    return model
