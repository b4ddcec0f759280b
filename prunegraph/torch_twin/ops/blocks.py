"""Weights quantized in blocks: several small integers in a byte, and a scale for every few neighbouring slots."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.ops.select import wrapped
from prunegraph.torch_twin.registry import MICROSOFT, torch_op


def unpacked(packed: Tensor, bits: int) -> Tensor:
    """The numbers of the last axis, low bits first."""
    if bits == 8:
        return packed
    shifts = torch.arange(0, 8, bits, device=packed.device)
    return ((packed.unsqueeze(-1).int() >> shifts) & (2**bits - 1)).flatten(-2)


@torch_op("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    order: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    accuracy_level: int = 0,
    bits: int = 4,
    block_size: int,
) -> Tensor:
    """`[…, K] · [N, blocks, bytes]`; scales, zero points that are floats and the bias are trained, bytes are not."""
    numbers, scales = unpacked(weight, bits), scales.reshape(N, -1)
    points: Tensor | float = 2.0 ** (bits - 1)
    if zero_points is not None:
        rows = zero_points.reshape(N, -1)
        rows = rows if rows.is_floating_point() else unpacked(rows, bits)
        points = rows[:, : scales.shape[1]].to(scales.dtype)
    if order is None:
        points = points[..., None] if isinstance(points, Tensor) else points
        dense = ((numbers - points) * scales[..., None]).flatten(1)[:, :K]
    else:
        points = points[:, order.long()] if isinstance(points, Tensor) else points
        dense = (numbers.flatten(1)[:, :K] - points) * scales[:, order.long()]
    return functional.linear(x, dense, bias)


@torch_op("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(
    data: Tensor,
    indices: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Tensor:
    """Slots of a quantized table, looked up; in bytes the zero point is the middle unless told otherwise."""
    axis, blocks = gather_axis % data.dim(), quantize_axis % data.dim()
    several = data.dtype == torch.uint8 and data.shape[blocks] * (8 // bits) >= scales.shape[blocks] * block_size
    points = zero_points
    if several:
        data, points = unpacked(data, bits), None if points is None else unpacked(points, bits)
    at = wrapped(indices.reshape(-1), data.shape[axis])
    if axis != blocks:
        data, scales = data.index_select(axis, at), scales.index_select(axis, at)
        points = None if points is None else points.index_select(axis, at)
    middle = 2.0 ** (bits - 1) if several else 0.0
    spread = scales.repeat_interleave(block_size, blocks).narrow(blocks, 0, data.shape[blocks])
    if points is None:
        y = (data - middle) * spread
    else:
        points = points.narrow(blocks, 0, scales.shape[blocks])
        y = (
            data.to(scales.dtype) - points.repeat_interleave(block_size, blocks).narrow(blocks, 0, data.shape[blocks])
        ) * spread
    y = y if axis != blocks else y.index_select(axis, at)
    return y.reshape(*y.shape[:axis], *indices.shape, *y.shape[axis + 1 :])
