"""Write recurrent layers time first, since ONNX Runtime has no kernel for `layout=1`, batch first."""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.runtime.edit import Editor, Insertion

OPS = ("LSTM", "GRU", "RNN")
STATES = (5, 6)
"""Inputs that hold a state to begin with; the outputs after the first hold one at the end."""


def time_first(model: ir.Model) -> ir.Model:
    """A copy of a model in which every recurrent layer has `layout=0`, between transposes; the model where all have.

    It computes the same, and ONNX Runtime runs it.
    """
    if not any(map(_is_batch_first, model.graph)):
        return model
    turned = model.clone()
    turned.meta.update(model.meta)
    editor = Editor(turned.graph)
    for node in [each for each in turned.graph if _is_batch_first(each)]:
        del node.attributes["layout"]
        before, after = editor.at(node).before(), editor.at(node).after()
        for index in (0, *STATES):
            if index < len(node.inputs) and (value := node.inputs[index]) is not None:
                node.replace_input_with(index, _turned(before, value, (1, 0, 2)))
        for k, value in enumerate(list(node.outputs)):
            if value.uses() or value.is_graph_output():
                shape = value.shape
                value.shape = None  # of what stands between the layer and the transpose
                new = _turned(after, value, (1, 0, 2) if k else (2, 0, 1, 3))
                new.type, new.shape = value.type, shape
                after.replace(value, new)
    return turned


def _is_batch_first(node: ir.Node) -> bool:
    return node.op_type in OPS and node.domain in ("", "ai.onnx") and node.attributes.get_int("layout", 0) == 1


def _turned(here: Insertion, value: ir.Value, order: tuple[int, ...]) -> ir.Value:
    return here.add("Transpose", value, perm=list(order))
