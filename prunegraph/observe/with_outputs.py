"""A model that puts out what is to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunegraph.observe.attention_sites import Tap
from prunegraph.observe.decompose_attention import asked, makes_own_qkv


def tapped(model: ir.Model, taps: Sequence[Tap]) -> ir.Model:
    """A copy of a model that puts out the tapped values too."""
    twin = model.clone()
    nodes = list(twin.graph)
    for tap in taps:
        if tap.node is not None:
            _ask(nodes[tap.node], tap)
    nodes = list(twin.graph)
    by_name = {value.name: value for value in twin.graph.inputs}
    by_name |= {value.name: value for node in nodes for value in node.outputs}
    there = {value.name for value in twin.graph.outputs}
    for tap in taps:
        if tap.value not in there:
            value = by_name[tap.value]
            twin.graph.outputs.append(value)
            there.add(tap.value)
    return twin


def _ask(node: ir.Node, tap: Tap) -> None:
    """Let a second node compute what the first one hides, so that the outputs that it has stay what they are."""
    assert isinstance(node.graph, ir.Graph)
    attributes = {name: attribute for name, attribute in node.attributes.items() if name not in dict(tap.attributes)}
    outputs = [ir.Value(name=f"{tap.value}/{k}") for k in range(tap.output)] + [ir.Value(name=tap.value)]
    outputs[-1].type = ir.TensorType(ir.DataType.FLOAT)  # ONNX Runtime does not infer it
    if makes_own_qkv(node):
        node.graph.insert_after(node, asked(node, f"{node.name}/tap", outputs))
        return
    numbers = [ir.AttrInt64(name, number) for name, number in tap.attributes]
    twin = ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        [*attributes.values(), *numbers],
        outputs=outputs,
        name=f"{node.name}/tap",
    )
    node.graph.insert_after(node, twin)
