"""Put flattened branches back into Ifs: a choice is computed, and what is not chosen is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, TopologicalSortPass

from prunegraph.analysis.bodies import CHOOSE, DOMAIN
from prunegraph.runtime.edit import Editor

IF = "prunegraph.if"
"""The key of a choice's metadata that says which If it comes from."""


def nest_branches(model: ir.Model) -> ir.Model:
    """The same model, its choices written as Ifs in place; what one branch alone needs stands in that branch."""
    if any(map(_is_choice, model.graph)):
        _nest(model.graph, Editor(model.graph))
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        TopologicalSortPass()(model)
        model.graph.opset_imports.pop(DOMAIN, None)
    return model


def _is_choice(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == (DOMAIN, CHOOSE)


def _nest(graph: ir.Graph, editor: Editor) -> None:
    """The choices of one graph, the last If first: it may hold others."""
    by_if: dict[str, list[ir.Node]] = {}
    for node in graph:
        if _is_choice(node):
            by_if.setdefault(node.metadata_props.get(IF, ""), []).append(node)
    for name, choices in reversed(by_if.items()):
        choices = [choice for choice in choices if choice.graph is graph]  # others stand in a branch by now
        if not choices:
            continue
        bodies = [_body(graph, editor, choices, k, f"{name}/{word}") for k, word in ((1, "then"), (2, "else"))]
        for body in bodies:
            _nest(body, editor)
        _write(graph, editor, name, choices, bodies)


def _body(graph: ir.Graph, editor: Editor, choices: list[ir.Node], branch: int, name: str) -> ir.Graph:
    moved = _needed_by(graph, choices, branch)
    graph.remove(moved)
    moved_outputs = {value for node in moved for value in node.outputs}
    outputs: list[ir.Value] = []
    for choice in choices:
        value = choice.inputs[branch]
        assert value is not None
        choice.replace_input_with(branch, None)
        if value not in moved_outputs or value in outputs:  # it belongs to somebody else, too
            identity = editor.handed(value, f"{name}/handed")
            moved.append(identity)
            value = identity.outputs[0]
        outputs.append(value)
    return ir.Graph([], outputs, nodes=moved, opset_imports=graph.opset_imports, name=name)


def _needed_by(graph: ir.Graph, choices: Iterable[ir.Node], branch: int) -> list[ir.Node]:
    """The nodes that nothing needs but one branch, in order."""
    ends, inside, within = set(choices), set[ir.Node](), _standing_in(graph)
    for node in reversed(list(graph)):
        uses = [use for value in node.outputs for use in value.uses()]
        readers = [(within.get(reader, reader), index) for reader, index in uses]
        alone = all((reader in ends and index == branch) or reader in inside for reader, index in readers)
        if uses and alone and not any(value.is_graph_output() for value in node.outputs):
            inside.add(node)
    return [node for node in graph if node in inside]


def _standing_in(graph: ir.Graph) -> Mapping[ir.Node, ir.Node]:
    """By every node inside of a body, the node of the graph whose body that is."""
    bodies = ((node, attribute) for node in graph for attribute in node.attributes.values())
    return {
        inner: node
        for node, attribute in bodies
        if attribute.type == ir.AttributeType.GRAPH
        for inner in attribute.as_graph().all_nodes()
    }


def _write(graph: ir.Graph, editor: Editor, name: str, choices: list[ir.Node], bodies: list[ir.Graph]) -> None:
    attributes = {"then_branch": bodies[0], "else_branch": bodies[1]}
    outputs = [ir.Value(name=editor.unused(f"{name}/out")) for _ in choices]
    for choice, output in zip(choices, outputs, strict=True):
        output.type, output.shape = choice.outputs[0].type, choice.outputs[0].shape
    node = ir.node("If", [choices[0].inputs[0]], attributes, outputs=outputs, name=editor.unused(name))
    node.metadata_props.update({k: v for k, v in choices[0].metadata_props.items() if k != IF})
    graph.insert_before(choices[-1], node)
    for choice, output in zip(choices, outputs, strict=True):
        editor.replace(choice.outputs[0], output)
        graph.remove(choice, safe=True)
