"""Reshape, Transpose and other ops that rearrange elements without changing them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op


@torch_op("Reshape")
def reshape(x: Tensor, shape: StatedLengths, *, allowzero: int = 0) -> Tensor:
    """To stated lengths: -1 is what remains, 0 the length that was there, unless zeros are allowed."""
    lengths = integers(shape)
    if not allowzero:
        lengths = [x.shape[k] if n == 0 else n for k, n in enumerate(lengths)]
    return torch.reshape(x, lengths)


@torch_op("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix: the axes before `axis`, and those from it on."""
    axis = axis + x.dim() if axis < 0 else axis
    return torch.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@torch_op("Squeeze")
def squeeze(x: Tensor, axes: StatedLengths | None = None) -> Tensor:
    """Without axes of length one: the stated ones, or all."""
    if axes is None:
        return torch.squeeze(x)
    return torch.squeeze(x, tuple(integers(axes)))


@torch_op("Unsqueeze")
def unsqueeze(x: Tensor, axes: StatedLengths) -> Tensor:
    """With axes of length one at the stated places of the result."""
    where = integers(axes)
    rank = x.dim() + len(where)
    for axis in sorted(axis % rank for axis in where):
        x = torch.unsqueeze(x, axis)
    return x


@torch_op("Transpose")
def transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    """Axes permuted; reversed where nothing is said."""
    return torch.permute(x, perm if perm is not None else list(range(x.dim()))[::-1])


@torch_op("Expand")
def expand(x: Tensor, shape: StatedLengths) -> Tensor:
    """Broadcast to stated lengths, which broadcast to the operand's too."""
    lengths = integers(shape)
    return x.expand(torch.broadcast_shapes(x.shape, lengths))


@torch_op("Tile")
def tile(x: Tensor, repeats: StatedLengths) -> Tensor:
    """Every axis repeated so many times."""
    return x.repeat(integers(repeats))
