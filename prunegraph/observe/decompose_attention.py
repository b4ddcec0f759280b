"""Get attention probabilities out of fused ops: most can put out what they compute inside.

One cannot, `Attention` of com.microsoft; projections and a `MultiHeadAttention` beside it compute the same and can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.runtime.edit import Insertion

MICROSOFT = "com.microsoft"

FUSED = {
    ("", "Attention"),
    (MICROSOFT, "Attention"),
    (MICROSOFT, "MultiHeadAttention"),
    (MICROSOFT, "GroupQueryAttention"),
}


@dataclass(frozen=True, slots=True)
class ProbabilityOutput:
    """Which output to ask for, the attributes that make it what is wanted, and whether it is not softened yet."""

    output: int
    attributes: tuple[tuple[str, int], ...] = ()
    scores: bool = False


_PROBABILITY_OUTPUT = {
    ("", "Attention"): ProbabilityOutput(3, (("qk_matmul_output_mode", 3),)),
    (MICROSOFT, "Attention"): ProbabilityOutput(3, scores=True),
    (MICROSOFT, "MultiHeadAttention"): ProbabilityOutput(3, scores=True),
    (MICROSOFT, "GroupQueryAttention"): ProbabilityOutput(3, (("qk_output", 2),)),
}


def hidden_probabilities(node: ir.Node) -> ProbabilityOutput | None:
    """How to ask a fused op for its probabilities, None if it does not tell."""
    if projects_qkv(node) and node.attributes.get_int("do_rotary"):
        return None  # no other op rotates as it does
    return _PROBABILITY_OUTPUT.get((node.domain, node.op_type))


def projects_qkv(node: ir.Node) -> bool:
    """Whether the op multiplies by a weight before it attends, so that Q, K and V are in no value of the graph."""
    return (node.domain, node.op_type) == (MICROSOFT, "Attention")


_SHARED = ("num_heads", "unidirectional", "scale", "mask_filter_value")


def decompose_attention(here: Insertion, node: ir.Node, outputs: Sequence[ir.Value]) -> None:
    """Add nodes that compute what a node of `projects_qkv` does, the last of which has these outputs.

    Args:
        here: Where they go.
        node: Inputs are the activation `[batch, positions, inputs]`, the weight `[inputs, q + k + v]`, its bias, a mask
            of keys, the past `[2, batch, heads, positions, width]` and a bias of the scores `[batch, heads, q, k]`.
        outputs: Those of `MultiHeadAttention`.
    """
    x, weight, bias, mask, past, scores = (node.inputs[k] if k < len(node.inputs) else None for k in range(6))
    assert x is not None and weight is not None and weight.shape is not None
    thirds = (int(weight.shape.numpy()[1]) // 3,) * 3
    parts = np.array(node.attributes.get_ints("qkv_hidden_sizes", thirds) or thirds, dtype=np.int64)
    product = here.add("MatMul", x, weight)
    q, k, v = here.node("Split", product, here.constant(parts), outputs=3, axis=-1).outputs
    before: list[ir.Value | None] = [None, None]
    if past is not None:
        before = [here.add("Gather", past, here.constant(np.array(side, dtype=np.int64)), axis=0) for side in (0, 1)]
    shared = [attribute for key in _SHARED if (attribute := node.attributes.get(key)) is not None]
    inputs = [q, k, v, bias, mask, scores, *before]
    here.node("MultiHeadAttention", *inputs, domain=MICROSOFT, outputs=outputs, copied=shared)
