"""Shape, Size, Range and other ops about lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op


@torch_op("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """The lengths of an operand, on the CPU."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


@torch_op("Size")
def size(x: Tensor) -> Tensor:
    """How many slots an operand has."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@torch_op("ConstantOfShape")
def constant_of_shape(lengths: StatedLengths, *, value: Tensor | None = None) -> Tensor:
    """ConstantOfShape: one value at every place of a shape."""
    filler = torch.zeros(1) if value is None else value
    return filler.reshape(()).expand(integers(lengths)).clone()


@torch_op("Range")
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """From start to before the limit."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)
