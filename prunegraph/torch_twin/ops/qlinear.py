"""Ops of ONNX Runtime between quantized tensors: dequantized, worked on as floats, quantized again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.ops.attention import fused_qkv
from prunegraph.torch_twin.ops.conv import Ints, average_pool
from prunegraph.torch_twin.ops.quant import centred, channels_first, dequantize_linear, quantize_linear, saturated
from prunegraph.torch_twin.registry import MICROSOFT, torch_op


@torch_op("QLinearAdd", domain=MICROSOFT)
def qlinear_add(
    a: Tensor,
    a_scale: Tensor,
    a_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_point: Tensor | None,
    y_scale: Tensor,
    y_point: Tensor | None = None,
) -> Tensor:
    """Add of dequantized operands, quantized again."""
    y = dequantize_linear(a, a_scale, a_point) + dequantize_linear(b, b_scale, b_point)
    return quantize_linear(y, y_scale, y_point)


@torch_op("QLinearMul", domain=MICROSOFT)
def qlinear_mul(
    a: Tensor,
    a_scale: Tensor,
    a_point: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_point: Tensor | None,
    y_scale: Tensor,
    y_point: Tensor | None = None,
) -> Tensor:
    """Mul of dequantized operands, quantized again."""
    y = dequantize_linear(a, a_scale, a_point) * dequantize_linear(b, b_scale, b_point)
    return quantize_linear(y, y_scale, y_point)


@torch_op("QLinearSigmoid", domain=MICROSOFT)
def qlinear_sigmoid(
    x: Tensor, x_scale: Tensor, x_point: Tensor | None, y_scale: Tensor, y_point: Tensor | None = None
) -> Tensor:
    """Sigmoid of a dequantized input, quantized again."""
    return quantize_linear(torch.sigmoid(dequantize_linear(x, x_scale, x_point)), y_scale, y_point)


@torch_op("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_point: Tensor | None,
    y_scale: Tensor,
    y_point: Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> Tensor:
    """LeakyRelu of a dequantized input, quantized again."""
    y = functional.leaky_relu(dequantize_linear(x, x_scale, x_point), alpha)
    return quantize_linear(y, y_scale, y_point)


@torch_op("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(
    x: Tensor,
    x_scale: Tensor,
    x_point: Tensor | None,
    y_scale: Tensor,
    y_point: Tensor | None = None,
    *,
    axis: int = -1,
    opset: int = 13,
) -> Tensor:
    """Softmax along an axis, or as it was before opset 13, along all axes from there on."""
    y = dequantize_linear(x, x_scale, x_point)
    y = torch.softmax(y, axis) if opset >= 13 else torch.softmax(y.flatten(axis), -1).reshape(x.shape)
    return quantize_linear(y, y_scale, y_point)


@torch_op("QLinearWhere", domain=MICROSOFT)
def qlinear_where(
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_point: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_point: Tensor,
    z_scale: Tensor,
    z_point: Tensor,
) -> Tensor:
    """Where of dequantized operands, quantized again."""
    chosen = torch.where(condition, dequantize_linear(x, x_scale, x_point), dequantize_linear(y, y_scale, y_point))
    return quantize_linear(chosen, z_scale, z_point)


@torch_op("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(y_scale: Tensor, y_point: Tensor, *inputs: Tensor, axis: int) -> Tensor:
    """Concat of operands that come with a scale and a zero point each."""
    parts = [dequantize_linear(*inputs[k : k + 3]) for k in range(0, len(inputs), 3)]
    return quantize_linear(torch.cat(parts, axis), y_scale, y_point)


@torch_op("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(
    x: Tensor, x_scale: Tensor, x_point: Tensor, y_scale: Tensor, y_point: Tensor, *, channels_last: int = 0
) -> Tensor:
    """GlobalAveragePool; the sum is one of integers."""
    centre = centred(channels_first(x) if channels_last else x, x_point)
    total = centre.sum(tuple(range(2, x.dim())), keepdim=True)
    y = saturated(total.float() * (x_scale / (y_scale * (centre.numel() // total.numel()))), y_point)
    return y.movedim(1, -1) if channels_last else y


@torch_op("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_point: Tensor | None,
    y_scale: Tensor,
    y_point: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """AveragePool of a dequantized input, quantized again."""
    y = average_pool(
        dequantize_linear(channels_first(x) if channels_last else x, x_scale, x_point),
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    y = quantize_linear(y, y_scale, y_point)
    return y.movedim(1, -1) if channels_last else y


@torch_op("QAttention", domain=MICROSOFT)
def quantized_attention(
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    mask: Tensor | None = None,
    x_point: Tensor | None = None,
    weight_point: Tensor | None = None,
    past: Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attention with one quantized weight for Q, K and V, whose columns may have scales of their own."""
    return fused_qkv(
        dequantize_linear(x, x_scale, x_point),
        dequantize_linear(weights, weight_scale, weight_point, axis=-1),
        bias,
        mask,
        past,
        mask_filter_value=mask_filter_value,
        num_heads=num_heads,
        scale=scale,
        unidirectional=unidirectional,
    )
