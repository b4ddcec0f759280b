"""Conditions of Ifs that follow from constants alone, computed by ONNX Runtime before the model is tried as a whole."""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.passes.normalize.flatten_branches import is_if
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run


def constant_conditions(model: ir.Model) -> dict[str, tuple[Array, ...]]:
    """By name of a condition of the main graph that no input has a part in, what it holds.

    Args:
        model: Every value of its main graph is named, constants are initializers; it is not changed.
    """
    conditions = (node.inputs[0] for node in model.graph if is_if(node))
    names = [value.name or "" for value in conditions if value is not None and _is_computed(value)]
    if not names:
        return {}
    part = model.clone()
    produced = {value.name: value for node in part.graph for value in node.outputs}
    part.graph.outputs[:] = [produced[name] for name in dict.fromkeys(names)]
    needed_nodes = {
        node for value in part.graph.outputs for each in _behind(value) if (node := each.producer()) is not None
    }
    part.graph.remove(
        [node for node in part.graph if node not in needed_nodes]
    )  # bodies of the others read values still
    part.graph.inputs.clear()
    try:
        with open_session(part, optimize=False, prepack=False) as session:
            arrays = run(session, {}, names)
    except CannotRun:
        return {}
    return {name: (array,) for name, array in zip(names, arrays, strict=True)}


def _is_computed(value: ir.Value) -> bool:
    """Whether nodes compute a value, from constants alone."""
    for each in _behind(value):
        node = each.producer()
        if node is None and (each.const_value is None or each.is_graph_input()):
            return False
        if node is not None and any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            return False
    return value.producer() is not None


def _behind(value: ir.Value) -> set[ir.Value]:
    """A value and all that it is computed from."""
    waiting, behind = [value], {value}
    while waiting:
        node = waiting.pop().producer()
        for operand in node.inputs if node is not None else ():
            if operand is not None and operand not in behind:
                behind.add(operand)
                waiting.append(operand)
    return behind
