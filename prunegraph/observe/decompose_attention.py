"""What fused attention ops give away when asked: most can put out the probabilities that they compute inside.

One cannot, `Attention` of com.microsoft; `MultiHeadAttention` beside it computes the same and can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

MICROSOFT = "com.microsoft"

FUSED = {
    ("", "Attention"),
    (MICROSOFT, "Attention"),
    (MICROSOFT, "MultiHeadAttention"),
    (MICROSOFT, "GroupQueryAttention"),
}


@dataclass(frozen=True, slots=True)
class Hidden:
    """Which output to ask for, the attributes that make it what is wanted, and whether it is not softened yet."""

    output: int
    attributes: tuple[tuple[str, int], ...] = ()
    scores: bool = False


_GIVES = {
    ("", "Attention"): Hidden(3, (("qk_matmul_output_mode", 3),)),
    (MICROSOFT, "Attention"): Hidden(3, scores=True),
    (MICROSOFT, "MultiHeadAttention"): Hidden(3, scores=True),
    (MICROSOFT, "GroupQueryAttention"): Hidden(3, (("qk_output", 2),)),
}


def hidden_probabilities(node: ir.Node) -> Hidden | None:
    """How to ask a fused op for its probabilities, None if it does not tell."""
    if makes_own_qkv(node) and node.attributes.get_int("do_rotary"):
        return None  # no other op rotates as it does
    return _GIVES.get((node.domain, node.op_type))


def makes_own_qkv(node: ir.Node) -> bool:
    """Whether the op multiplies by a weight before it attends, so that Q, K and V are in no value of the graph."""
    return (node.domain, node.op_type) == (MICROSOFT, "Attention")


_SHARED = ("num_heads", "unidirectional", "scale", "mask_filter_value")


def asked(node: ir.Node, name: str, outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """Nodes that compute what a node of `makes_own_qkv` does, the last of which has these outputs.

    Args:
        node: Inputs are the activation `[batch, positions, inputs]`, the weight `[inputs, q + k + v]`, its bias, a mask
            of keys, the past `[2, batch, heads, positions, width]` and a bias of the scores `[batch, heads, q, k]`.
        name: Names of new nodes and values start with it.
        outputs: Those of `MultiHeadAttention`.
    """
    x, weight, bias, mask, past, scores = (node.inputs[k] if k < len(node.inputs) else None for k in range(6))
    assert x is not None and weight is not None and weight.shape is not None
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value | None, n: int = 1, **attributes: int) -> Sequence[ir.Value]:
        made = [ir.Value(name=f"{name}/{len(nodes)}/{k}") for k in range(n)]
        nodes.append(ir.node(op, list(inputs), attributes, outputs=made, name=f"{name}/{len(nodes)}"))
        return made

    def constant(value: Sequence[int] | int) -> ir.Value:
        (made,) = add("Constant")
        nodes[-1].attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array(value, dtype=np.int64)))
        return made

    thirds = (int(weight.shape.numpy()[1]) // 3,) * 3
    parts = node.attributes.get_ints("qkv_hidden_sizes", thirds) or thirds
    (product,) = add("MatMul", x, weight)
    q, k, v = add("Split", product, constant(list(parts)), n=3, axis=-1)
    before = [None, None] if past is None else [add("Gather", past, constant(side), axis=0)[0] for side in (0, 1)]
    shared = [attribute for key in _SHARED if (attribute := node.attributes.get(key)) is not None]
    inputs = [q, k, v, bias, mask, scores, *before]
    twin = ir.Node(MICROSOFT, "MultiHeadAttention", inputs, shared, outputs=outputs, name=name)
    return [*nodes, twin]
