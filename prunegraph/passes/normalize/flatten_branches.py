"""Flatten Ifs whose branches hold weights: both branches are computed, and a choice takes one result.

The axes of a branch are then axes of the graph: what both branches hand out is the same, weights that they share are
pruned once, and equal copies are one.  The choice is a function of the model that ONNX Runtime runs as an If; see
`rewrite.nest_branches`, which puts the branches back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
from onnx import helper

from prunegraph.analysis.bodies import CHOOSE, DOMAIN
from prunegraph.passes.rewrite.nest_branches import IF
from prunegraph.runtime.edit import Editor


def flatten_branches(model: ir.Model) -> bool:
    """Put the nodes of branches that hold weights before their If, in place, those inside of branches too.

    Args:
        model: Every value of its main graph is named; functions are inlined.

    Returns:
        Whether there was such an If.
    """
    graph, flattened = model.graph, False
    waiting = [node for node in graph if is_if(node)]
    while waiting:
        node = waiting.pop(0)
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        if not any(map(_holds_weights, branches)):
            continue
        counts = Counter(names_of(model))
        results: list[list[ir.Value]] = []
        for branch in branches:
            moved, handed = hoist(graph, node, branch, counts)
            results.append(handed)
            waiting += [each for each in moved if is_if(each)]
        _choose(graph, node, results)
        flattened = True
    if flattened:
        _define(model)
    return flattened


def hoist(
    graph: ir.Graph, node: ir.Node, branch: ir.Graph, counts: Counter[str]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Move the nodes and the constants of a branch before the If, names that are unique as they are.

    Args:
        graph: Where the If stands.
        node: The If.
        branch: One of its branches.
        counts: How often every name stands anywhere in the model.

    Returns:
        The nodes, and the values that the branch handed out.
    """

    def rename(old: str | None, wish: str) -> str:
        counts[old or ""] -= 1
        name, k = wish, 1
        while counts[name] > 0:
            k += 1
            name = f"{wish}.{k}"
        counts[name] += 1
        return name

    results, moved = list(branch.outputs), list(branch)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        branch.initializers.pop(name)
        value.name = rename(name, name)
        graph.register_initializer(value)
    branch.remove(moved)
    for each in moved:
        each.name = rename(each.name, each.name or f"{node.name}/{each.op_type}")
        for value in each.outputs:
            value.shape = None  # names of lengths mean something else in every branch
            if value.name:
                value.name = rename(value.name, value.name)
    graph.insert_before(node, moved)
    return moved, results


def is_if(node: ir.Node) -> bool:
    """Whether a node is an If of ONNX."""
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def _holds_weights(branch: ir.Graph) -> bool:
    """Whether a node of a branch reads a matrix of floats."""
    constants = (value for node in branch.all_nodes() for value in node.inputs if value is not None)
    for value in constants:
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) >= 2:
            return True
    return False


def _choose(graph: ir.Graph, node: ir.Node, results: list[list[ir.Value]]) -> None:
    editor = Editor(graph)
    here = editor.at(node).before()
    for k, (old, *handed) in enumerate(zip(list(node.outputs), *results, strict=True)):
        name = f"{node.name}/choose{k or ''}"
        new = here.add(CHOOSE, node.inputs[0], *handed, name=name, domain=DOMAIN, like=old)
        chosen = new.producer()
        assert chosen is not None
        chosen.metadata_props.update({**node.metadata_props, IF: node.name or ""})
        editor.replace(old, new)
    graph.remove(node, safe=True)


def _define(model: ir.Model) -> None:
    """Define a choice in ops that every runtime has, in place."""
    branches: dict[str, Any] = {}
    for name in ("then", "else"):
        handed = helper.make_node("Identity", [name], [f"{name}_y"])
        output = helper.make_empty_tensor_value_info(f"{name}_y")
        branches[f"{name}_branch"] = helper.make_graph([handed], name, [], [output])
    node = helper.make_node("If", ["condition"], ["y"], **branches)
    opset = model.graph.opset_imports.get("", 17)
    function = helper.make_function(
        DOMAIN, CHOOSE, ["condition", "then", "else"], ["y"], [node], [helper.make_opsetid("", opset)]
    )
    defined = ir.serde.deserialize_function(function)
    model.functions[defined.identifier()] = defined
    model.graph.opset_imports[DOMAIN] = 1


def names_of(model: ir.Model) -> Iterator[str]:
    """Every name of a value or a node, as often as it stands anywhere in a model."""
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from (value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
        for node in graph:
            yield node.name or ""
            yield from (value.name or "" for value in node.outputs)
