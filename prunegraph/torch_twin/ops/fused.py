"""What ONNX Runtime fuses (com.microsoft): sums into norms, biases into activations, activations into contractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.ops.conv import ConvAttributes, PoolAttributes, conv, max_pool
from prunegraph.torch_twin.ops.quant import channels_first
from prunegraph.torch_twin.registry import MICROSOFT, torch_op

_ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "": (lambda x: x, ()),
    "Relu": (torch.relu, ()),
    "Tanh": (torch.tanh, ()),
    "Sigmoid": (torch.sigmoid, ()),
    "LeakyRelu": (functional.leaky_relu, (0.01,)),
    "Clip": (torch.clamp, (torch.finfo(torch.float32).min, torch.finfo(torch.float32).max)),
    "HardSigmoid": (lambda x, a, b: (a * x + b).clamp(0, 1), (0.2, 0.5)),
    "Elu": (functional.elu, (1.0,)),
}
"""The functions that ONNX Runtime fuses into a contraction, with the defaults of their numbers."""


def _activated(x: Tensor, name: str, numbers: Sequence[float]) -> Tensor:
    function, defaults = _ACTIVATIONS[name]
    return function(x, *numbers[: len(defaults)], *defaults[len(numbers) :])


def _fast_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


@torch_op("BiasGelu", domain=MICROSOFT)
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Gelu of `x + bias`."""
    return functional.gelu(x + bias)


@torch_op("FastGelu", domain=MICROSOFT)
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The Gelu of tanh, of `x + bias`."""
    return _fast_gelu(x if bias is None else x + bias)


@torch_op("QuickGelu", domain=MICROSOFT)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """QuickGelu: `x · sigmoid(alpha·x)`."""
    return x * torch.sigmoid(alpha * x)


@torch_op("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """The first half of `x + bias` times Gelu of the second."""
    value, gate = (x + bias).chunk(2, -1)
    return value * functional.gelu(gate)


@torch_op("BiasAdd", domain=MICROSOFT)
def bias_add(x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    """`x + bias + skip`."""
    return x + bias + skip


@torch_op("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(x: Tensor, bias: Tensor, *, axis: int = 1, is_inner_broadcast: int = 1) -> Tensor:
    """Softmax of `x + bias` over all axes from `axis` on."""
    axis %= x.dim()
    return torch.softmax((x + bias).flatten(axis), -1).reshape(x.shape)


@torch_op("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The norm of `x + skip (+ bias)`, its mean and inverse deviation, and that sum."""
    total = x + skip if bias is None else x + skip + bias
    variance, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
    y = functional.layer_norm(total, total.shape[-1:], gamma, beta, epsilon)
    return y, mean, torch.rsqrt(variance + epsilon), total


@torch_op("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-12
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The norm without a mean of `x + skip (+ bias)`, and that sum as the fourth output."""
    total = x + skip if bias is None else x + skip + bias
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon)
    return total * inverse * gamma, total.mean(-1, keepdim=True), inverse, total


@torch_op("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(
    ids: Tensor,
    segments: Tensor | None,
    words: Tensor,
    positions: Tensor,
    segment_table: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The norm of word, position and segment embeddings added up, how much of each row counts, and the sum."""
    total = words[ids.long()] + (positions[: ids.shape[1]] if position_ids is None else positions[position_ids.long()])
    if segments is not None and segment_table is not None:
        total = total + segment_table[segments.long()]
    counts = ids.new_zeros(ids.shape[0]) if mask is None else (mask == 1).sum(1)
    return functional.layer_norm(total, total.shape[-1:], gamma, beta, epsilon), counts.int(), total


def _transposed(x: Tensor, last: int, batch: int) -> Tensor:
    """An operand of FusedMatMul: `batch` moves the first axis behind the others but the last."""
    if x.dim() < 2:
        return x
    x = x.movedim(0, -2) if batch else x
    return x.transpose(-1, -2) if last else x


@torch_op("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """MatMul with either operand transposed, times a number."""
    return alpha * torch.matmul(_transposed(a, transA, transBatchA), _transposed(b, transB, transBatchB))


@torch_op("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """An activation function of Gemm."""
    y = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    y = y if c is None else y + beta * c
    return _activated(
        y, activation, [n for n in (activation_alpha, activation_beta, activation_gamma) if n is not None]
    )


@torch_op("GemmFastGelu", domain=MICROSOFT)
def gemm_fast_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The Gelu of tanh, of `X·W + bias`."""
    return fast_gelu(x @ weight, bias)


@torch_op("FusedConv", domain=MICROSOFT)
def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    summand: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Unpack[ConvAttributes],
) -> Tensor:
    """An activation function of `Conv(X) + Z`."""
    y = conv(x, weight, bias, **attributes)
    return _activated(y if summand is None else y + summand, activation, activation_params)


@torch_op("NhwcConv", "NhwcFusedConv", domain=MICROSOFT)
def channels_last_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    summand: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Unpack[ConvAttributes],
) -> Tensor:
    """FusedConv with channels last; the weight is as in Conv."""
    y = fused_conv(
        channels_first(x),
        weight,
        bias,
        None if summand is None else channels_first(summand),
        activation=activation,
        activation_params=activation_params,
        **attributes,
    )
    return y.movedim(1, -1)


@torch_op("NhwcMaxPool", domain=MICROSOFT)
def channels_last_pool(x: Tensor, **pool: Unpack[PoolAttributes]) -> Tensor:
    """MaxPool with channels last."""
    y, _ = max_pool(channels_first(x), **pool)
    return y.movedim(1, -1)


@torch_op("GroupNorm", domain=MICROSOFT)
def group_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    activation: int = 0,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    groups: int,
) -> Tensor:
    """Statistics within each group of channels, then SiLU if told."""
    y = functional.group_norm(channels_first(x) if channels_last else x, groups, gamma, beta, epsilon)
    y = functional.silu(y) if activation else y
    return y.movedim(1, -1) if channels_last else y


@torch_op("SkipGroupNorm", domain=MICROSOFT)
def skip_group_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    skip: Tensor,
    bias: Tensor | None = None,
    *,
    activation: int = 0,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """GroupNorm of `x + skip (+ bias)`, and that sum."""
    space = (1,) * (x.dim() - 2)
    if skip.dim() == 2:
        skip = skip.reshape(len(skip), *space, -1) if channels_last else skip.reshape(*skip.shape, *space)
    total = x + skip
    if bias is not None:
        total = total + (bias if channels_last else bias.reshape(-1, *space))
    y = group_norm(
        total, gamma, beta, activation=activation, channels_last=channels_last, epsilon=epsilon, groups=groups
    )
    return y, total
