"""Add outputs to a model: values inside of it, and attention probabilities that a fused op hides."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunegraph.moved import former_names
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.decompose_attention import decompose_attention, projects_qkv
from prunegraph.runtime.edit import Editor


def with_outputs(model: ir.Model, observed: Sequence[ObservedValue]) -> ir.Model:
    """A copy of a model that puts out these values too, computed beside where a fused op hides them."""
    twin = model.clone()
    nodes, editor = list(twin.graph), Editor(twin.graph)
    for each in observed:
        if each.node is not None:
            _compute_beside(editor, nodes[each.node], each)
    nodes = list(twin.graph)
    by_name = {value.name: value for value in twin.graph.inputs}
    by_name |= {value.name: value for node in nodes for value in node.outputs}
    there = {value.name for value in twin.graph.outputs}
    for each in observed:
        if each.value not in there:
            value = by_name[each.value]
            twin.graph.outputs.append(value)
            there.add(each.value)
    return twin


def _compute_beside(editor: Editor, node: ir.Node, observed: ObservedValue) -> None:
    """Let a second node compute what the first one hides, so that the outputs that it has stay what they are."""
    outputs = [ir.Value(name=f"{observed.value}/{k}") for k in range(observed.output)] + [ir.Value(name=observed.value)]
    outputs[-1].type = ir.TensorType(ir.DataType.FLOAT)  # ONNX Runtime does not infer it
    here = editor.at(node).after()
    if projects_qkv(node):
        decompose_attention(here, node, outputs)
    else:
        attributes = {**node.attributes, **{name: ir.AttrInt64(name, number) for name, number in observed.attributes}}
        copied = attributes.values()
        here.node(node.op_type, *node.inputs, domain=node.domain, outputs=outputs, copied=copied)


__getattr__ = former_names(__name__, tapped=with_outputs)
