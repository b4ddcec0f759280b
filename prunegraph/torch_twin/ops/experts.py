"""Gated units, and a mixture of experts made of them (com.microsoft)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.registry import MICROSOFT, torch_op

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "identity": lambda x: x,
}


@torch_op("SwiGLU")
def swiglu(gate: Tensor, value: Tensor, *, alpha: float = 1.0) -> Tensor:
    """ai.onnx: `gate · sigmoid(alpha·gate) · value`."""
    return gate * torch.sigmoid(alpha * gate) * value


@torch_op("MoE", domain=MICROSOFT)
def mixture(
    x: Tensor,
    router: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None = None,
    third: Tensor | None = None,
    third_bias: Tensor | None = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    k: int = 1,
    normalize_routing_weights: int = 0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
) -> Tensor:
    """Experts `[experts, inner (·2), hidden]` and back, the best `k` for every row, weighed by their softmax."""
    rows = x.flatten(0, -2)
    shares, best = torch.softmax(router, -1).topk(k, -1)
    if normalize_routing_weights:
        shares = shares / shares.sum(-1, keepdim=True)
    weight = torch.zeros_like(router).scatter(1, best, shares)

    def linear(rows: Tensor, weights: Tensor, bias: Tensor | None, expert: int) -> Tensor:
        return functional.linear(rows, weights[expert], None if bias is None else bias[expert])

    def gated(value: Tensor, gate: Tensor) -> Tensor:
        if swiglu_limit is not None:
            gate, value = gate.clamp(max=swiglu_limit), value.clamp(-swiglu_limit, swiglu_limit)
        return gate * torch.sigmoid(activation_alpha * gate) * (value + activation_beta)

    def inner(rows: Tensor, expert: int) -> Tensor:
        y = linear(rows, up, up_bias, expert)
        if swiglu_fusion == 1:
            return gated(y[..., 1::2], y[..., 0::2])
        if swiglu_fusion == 2:
            gate, value = y.chunk(2, -1)
            return gated(value, gate)
        if third is not None:
            value = linear(rows, third, third_bias, expert)
            return gated(value, y) if activation_type == "swiglu" else _ACTIVATIONS[activation_type](y) * value
        return _ACTIVATIONS[activation_type](y)

    y = torch.zeros_like(rows)
    for expert in range(len(up)):
        taken = torch.nonzero((best == expert).any(-1)).reshape(-1)
        expert_rows = linear(inner(rows[taken], expert), down, down_bias, expert)
        y = y.index_add(0, taken, expert_rows * weight[taken, expert, None])
    return y.reshape(x.shape)
