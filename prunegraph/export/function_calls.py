"""Calls of functions that a model brings along: as many operands and results as the function has."""

from __future__ import annotations

from itertools import chain

import onnx_ir as ir

from prunegraph.errors import ModelError


def check_calls(model: ir.Model) -> None:
    """Give every call all outputs of its function, in place: those that it leaves out nobody reads.

    Raises:
        ModelError: A call has more inputs or outputs than the function.
    """
    bodies = chain(model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values()))
    for node in bodies:
        function = model.functions.get(node.op_identifier())
        if function is None:
            continue
        for what, count, most in (
            ("inputs", len(node.inputs), len(function.inputs)),
            ("outputs", len(node.outputs), len(function.outputs)),
        ):
            if count > most:
                call = f"{node.name or node.op_type} calls the function {function.name!r}"
                raise ModelError(f"{call} with {count} {what}, and it has {most}", hint="export the model again")
        if len(node.outputs) < len(function.outputs):
            node.resize_outputs(len(function.outputs))
