"""What fused attention ops give away when asked: most can put out the probabilities that they compute inside."""

from __future__ import annotations

from dataclasses import dataclass

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
    (MICROSOFT, "MultiHeadAttention"): Hidden(3, scores=True),
    (MICROSOFT, "GroupQueryAttention"): Hidden(3, (("qk_output", 2),)),
}


def hidden_probabilities(node: ir.Node) -> Hidden | None:
    """How to ask a fused op for its probabilities, None if it does not tell."""
    return _GIVES.get((node.domain, node.op_type))
