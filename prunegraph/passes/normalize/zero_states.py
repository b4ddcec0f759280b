"""First states of zeros are left out of recurrent layers: that is what none means, and they tie layers by their shape.

Exporters take the states of all layers and directions from one block of zeros.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.ops import FIRST, traits_of
from prunegraph.analysis.rules.recurrent import GATES

_STATES = (5, 6)
"""Inputs that hold the first states; of a quantized layer, too."""


def leave_out_zero_states(graph: ir.Graph) -> None:
    """Leave out first states that are zero whatever the model is given, in place."""
    for node in graph:
        if node.op_type in GATES:
            for k in _STATES:
                if k < len(node.inputs) and _is_zero(node.inputs[k]):
                    node.replace_input_with(k, None)


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is zeros, moved or repeated."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "ConstantOfShape":
            fill = node.attributes.get("value")
            return fill is None or not np.any(fill.as_tensor().numpy())
        traits = traits_of(node)
        value = node.inputs[0] if traits.carries == FIRST and not traits.varies and node.inputs else None
    if value is None or value.is_graph_input() or value.const_value is None:
        return False
    return value.dtype is not None and value.dtype.is_floating_point() and not np.any(value.const_value.numpy())
