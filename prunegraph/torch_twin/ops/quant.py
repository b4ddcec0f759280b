"""Quantized arithmetic that lets gradients through.

What was rounded is kept in a float tensor that holds whole numbers, and the gradient passes as if it had not been
rounded (straight-through estimator, arXiv 1308.3432); beyond the range of the integer type it is zero.  Products of
integers are summed in float64, where they are exact.
"""

from __future__ import annotations

from typing import Unpack

import onnx_ir as ir
import torch
from torch import Tensor

from prunegraph.torch_twin.dtypes import torch_type
from prunegraph.torch_twin.ops.conv import ConvAttributes, conv
from prunegraph.torch_twin.registry import MICROSOFT, torch_op


def rounded(x: Tensor) -> Tensor:
    """The nearest whole number, of two the even one; the gradient is that of `x`."""
    return x + (torch.round(x) - x).detach()


def saturated(x: Tensor, zero_point: Tensor | None, dtype: torch.dtype = torch.uint8) -> Tensor:
    """`x` rounded, moved to its zero point and kept in the range of the zero point's type, or of `dtype`."""
    y = rounded(x)
    if zero_point is not None:
        y = y + zero_point.to(x.dtype)
        dtype = dtype if zero_point.is_floating_point() else zero_point.dtype
    limits = torch.iinfo(dtype)
    return y.clamp(limits.min, limits.max)


def along(parameter: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """A scale or zero point as it lies beside `x`: one number, one a slot of the axis, or one a block of slots."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if parameter.dim() == 1 and not block:
        return parameter.reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))
    if parameter.shape == x.shape or not block:
        return parameter
    return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])


def centred(x: Tensor, zero_point: Tensor | None, axis: int = -1) -> Tensor:
    """`x` less its zero point, in float64."""
    return x.double() if zero_point is None else x.double() - along(zero_point, x, axis).double()


@torch_op("QuantizeLinear")
@torch_op("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """`round(x / scale) + zero point`, within the range of the type."""
    point = None if zero_point is None else along(zero_point, x, axis, block_size)
    return saturated(x / along(scale, x, axis, block_size), point, torch_type(output_dtype or ir.DataType.UINT8))


@torch_op("DequantizeLinear")
@torch_op("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """`(x - zero point) * scale`."""
    y = x.to(scale.dtype)
    if zero_point is not None:
        y = y - along(zero_point, x, axis, block_size).to(scale.dtype)
    return y * along(scale, x, axis, block_size)


@torch_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eight bits over the range of `x` and zero; no gradient goes through the range."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = torch.where(high == low, 1.0, (high - low) / 255)
    point = torch.round((-low / scale).clamp(0, 255))
    return saturated(x / scale, point), scale, point


def product(a: Tensor, b: Tensor, a_point: Tensor | None, b_point: Tensor | None) -> Tensor:
    """MatMul of integers; zero points may be one a row of `a` and one a column of `b`."""
    return torch.matmul(centred(a, a_point, -2), centred(b, b_point, -1))


@torch_op("MatMulInteger")
def matmul_integer(a: Tensor, b: Tensor, a_point: Tensor | None = None, b_point: Tensor | None = None) -> Tensor:
    """MatMulInteger: a product of integers less their zero points."""
    return product(a, b, a_point, b_point).float()


@torch_op("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_point: Tensor | None = None,
    b_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """MatMul of integers, scaled, plus a bias."""
    y = product(a, b, a_point, b_point).float() * (along(a_scale, a, -2) * along(b_scale, b, -1))
    return y if bias is None else y + bias


@torch_op("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(
    a: Tensor, b: Tensor, b_scale: Tensor, b_point: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """MatMul of floats that are quantized on the spot."""
    quantized, scale, point = dynamic_quantize_linear(a)
    return matmul_integer_to_float(quantized, b, scale, b_scale, point, b_point, bias)


@torch_op("QLinearMatMul")
def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_point: Tensor,
    y_scale: Tensor,
    y_point: Tensor,
) -> Tensor:
    """MatMul of integers, brought to the scale of its output."""
    factor = along(a_scale, a, -2) * along(b_scale, b, -1) / along(y_scale, a, -2)
    return saturated(product(a, b, a_point, b_point).float() * factor, along(y_point, a, -2))


@torch_op("QGemm", domain=MICROSOFT)
def qgemm(
    a: Tensor,
    a_scale: Tensor,
    a_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_point: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_point: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Gemm of integers, whose bias is at the scale of the product; floats where no output scale is given."""
    y = product(a.T if transA else a, b.T if transB else b, a_point, b_point)
    y = (y if c is None else y + c.double()).float() * (alpha * a_scale * b_scale)
    return y if y_scale is None else saturated(y / y_scale, y_point)


def _filters(parameter: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if parameter is None else along(parameter, weight, 0)


@torch_op("ConvInteger")
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_point: Tensor | None = None,
    w_point: Tensor | None = None,
    **attributes: Unpack[ConvAttributes],
) -> Tensor:
    """Conv of integers; what is padded is the zero point."""
    y = conv(
        centred(x, x_point),
        centred(w, _filters(w_point, w)),
        **attributes,
    )
    return y.float()


def channels_first(x: Tensor) -> Tensor:
    """`[N, *space, C]` as `[N, C, *space]`."""
    return x.movedim(-1, 1)


@torch_op("QLinearConv")
@torch_op("QLinearConv", domain=MICROSOFT)
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_point: Tensor,
    y_scale: Tensor,
    y_point: Tensor,
    bias: Tensor | None = None,
    *,
    channels_last: int = 0,
    **attributes: Unpack[ConvAttributes],
) -> Tensor:
    """Conv of integers, brought to the scale of its output; the bias is at the scale of the sum."""
    y = conv(
        centred(channels_first(x) if channels_last else x, x_point),
        centred(w, _filters(w_point, w)),
        None if bias is None else bias.double(),
        **attributes,
    )
    factor = x_scale * w_scale / y_scale
    factor = factor if factor.numel() == 1 else factor.reshape(-1, *[1] * (x.dim() - 2))
    y = saturated(y.float() * factor, y_point)
    return y.movedim(1, -1) if channels_last else y
