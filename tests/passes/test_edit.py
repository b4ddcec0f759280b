"""The editor: where nodes go, that no name is given twice, and who reads what after a replacement."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.runtime.edit import Editor, numbers
from prunegraph.runtime.session import run, session_of


def chain() -> ir.Model:
    """`y = -relu(x)`, and the relu is an output too."""
    x = ir.val("x", ir.DataType.FLOAT, [3])
    relu = ir.node("Relu", [x], name="relu", outputs=[ir.val("h", ir.DataType.FLOAT, [3])])
    neg = ir.node("Neg", relu.outputs, name="neg", outputs=[ir.val("y", ir.DataType.FLOAT, [3])])
    graph = ir.Graph([x], [*relu.outputs, *neg.outputs], nodes=[relu, neg], opset_imports={"": 18}, name="chain")
    return ir.Model(graph, ir_version=10)


def outputs_of(model: ir.Model) -> dict[str, list[float]]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    results = run(session_of(proto), {"x": np.array([-1, 2, 3], np.float32)})
    return {value.name: result.tolist() for value, result in zip(proto.graph.output, results, strict=True)}


def names(graph: ir.Graph) -> list[str | None]:
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    return [*(node.name for node in graph), *(value.name for value in values)]


@pytest.mark.parametrize("place", ["before", "after"])
def test_nodes_stand_in_the_order_in_which_they_are_added(place: str) -> None:
    model = chain()
    at = Editor(model.graph).at(model.graph[1])
    here = at.before() if place == "before" else at.after()
    value = model.graph[0].outputs[0]
    for op in ("Abs", "Sqrt", "Exp"):
        value = here.add(op, value)
    order = [node.op_type for node in model.graph]
    assert order == (
        ["Relu", "Abs", "Sqrt", "Exp", "Neg"] if place == "before" else ["Relu", "Neg", "Abs", "Sqrt", "Exp"]
    )


def test_replaced_after_its_maker_with_its_name_and_as_an_output() -> None:
    """What the new value is made of goes on reading the old one; everybody else, and the caller, reads the new one."""
    model = chain()
    here = Editor(model.graph).at(model.graph[0]).after()
    old = model.graph[0].outputs[0]
    here.replace(old, here.add("Mul", old, here.constant(np.float32(10)), like=old))
    assert outputs_of(model) == {"h": [0, 20, 30], "y": [0, -20, -30]}


def test_replaced_by_what_was_there_before() -> None:
    model = chain()
    relu, neg = model.graph
    Editor(model.graph).replace(relu.outputs[0], relu.inputs[0], rename=False)
    assert neg.inputs[0] is relu.inputs[0] and relu.inputs[0].name == "x"


def test_no_name_is_given_twice() -> None:
    """Nor one that others have given since the last editor, or one from a body."""
    model = chain()
    for _ in range(3):
        here = Editor(model.graph).at(model.graph[0]).after()
        for _ in range(2):
            here.add("Mul", model.graph[0].outputs[0], here.constant(np.float32(1), "one"))
            split = here.node("Split", model.graph[0].outputs[0], outputs=2, num_outputs=2)
            here.clone(split, split.inputs, "copy")
    assert max(Counter(names(model.graph)).values()) == 1


def test_names_in_bodies_are_taken() -> None:
    inner = ir.node("Neg", [ir.val("x", ir.DataType.FLOAT, [3])], name="taken", outputs=[ir.val("also")])
    body = ir.Graph([], inner.outputs, nodes=[inner], name="body")
    outer = ir.node("If", [ir.val("c", ir.DataType.BOOL, [])], {"then_branch": body, "else_branch": body}, name="if")
    editor = Editor(ir.Graph([], outer.outputs, nodes=[outer], name="g"))
    assert [editor.unused(name) for name in ("taken", "also", "if", "free")] == ["taken.2", "also.2", "if.2", "free"]


def test_numbers_are_those_of_initializers_alone() -> None:
    model = chain()
    two = Editor(model.graph).constant(np.float32(2), "two")
    array = numbers(two)
    assert array is not None and array == 2
    assert numbers(model.graph[0].outputs[0]) is None and numbers(None) is None
