"""Put the branch that an If always takes in the place of the If.

What is constant once shapes are known counts too: exporters ask for the length of an axis before they squeeze it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.arrays import Array
from prunegraph.passes.normalize.flatten_branches import hoist, is_if, names_of
from prunegraph.runtime.edit import Editor


def inline_branches(model: ir.Model, stated: Mapping[str, tuple[Array, ...]] | None = None) -> bool:
    """Inline every If of the main graph whose condition is known, in place, those inside of what is inlined too.

    Args:
        model: Every value of its main graph is named.
        stated: What values held in every probe, for conditions that follow from shapes.

    Returns:
        Whether there was one.
    """
    graph, inlined = model.graph, False
    waiting = list(graph)
    while waiting:
        node = waiting.pop()
        condition = _condition(node, stated or {})
        if condition is None:
            continue
        branch = node.attributes["then_branch" if condition else "else_branch"].as_graph()
        waiting += _inline(graph, node, branch, Counter(names_of(model)))
        inlined = True
    if inlined:
        RemoveUnusedNodesPass()(model)
    return inlined


def _condition(node: ir.Node, stated: Mapping[str, tuple[Array, ...]]) -> bool | None:
    """Which way an If always goes; None for other nodes, and where that hangs on the data."""
    if not is_if(node):
        return None
    value = node.inputs[0]
    assert value is not None
    if value.const_value is not None and not value.is_graph_input():
        return bool(np.all(value.const_value.numpy()))
    answers = {bool(np.all(array)) for array in stated.get(value.name or "", ())}
    return answers.pop() if len(answers) == 1 else None


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph, counts: Counter[str]) -> list[ir.Node]:
    """Move the nodes and the constants of a branch before the If, and let its outputs be read in place of those."""
    moved, results = hoist(graph, node, branch, counts)
    editor = Editor(graph)
    here = editor.at(node).before()
    for old, new in zip(list(node.outputs), results, strict=True):
        if old.is_graph_output():  # an outer value has a name that others know
            new = here.add("Identity", new, like=old)
        editor.replace(old, new, rename=old.is_graph_output())
    graph.remove(node, safe=True)
    return moved
