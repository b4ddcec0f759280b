"""A model that puts out what is to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunegraph.observe.attention_sites import Tap
from prunegraph.observe.decompose_attention import decompose_attention, projects_qkv
from prunegraph.runtime.edit import Editor


def tapped(model: ir.Model, taps: Sequence[Tap]) -> ir.Model:
    """A copy of a model that puts out the tapped values too."""
    twin = model.clone()
    nodes, editor = list(twin.graph), Editor(twin.graph)
    for tap in taps:
        if tap.node is not None:
            _compute_beside(editor, nodes[tap.node], tap)
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


def _compute_beside(editor: Editor, node: ir.Node, tap: Tap) -> None:
    """Let a second node compute what the first one hides, so that the outputs that it has stay what they are."""
    outputs = [ir.Value(name=f"{tap.value}/{k}") for k in range(tap.output)] + [ir.Value(name=tap.value)]
    outputs[-1].type = ir.TensorType(ir.DataType.FLOAT)  # ONNX Runtime does not infer it
    here = editor.at(node).after()
    if projects_qkv(node):
        decompose_attention(here, node, outputs)
    else:
        attributes = {**node.attributes, **{name: ir.AttrInt64(name, number) for name, number in tap.attributes}}
        copied = attributes.values()
        here.node(node.op_type, *node.inputs, domain=node.domain, outputs=outputs, copied=copied)
