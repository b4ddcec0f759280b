"""Random ops, drawn by torch's generator, whatever seed the file names."""

from __future__ import annotations

import torch
from torch import Tensor

from prunegraph.torch_twin.dtypes import torch_type
from prunegraph.torch_twin.registry import torch_op


@torch_op("Bernoulli")
def bernoulli(x: Tensor, *, dtype: int | None = None, seed: float | None = None) -> Tensor:
    """One with the probability that an operand says."""
    return torch.bernoulli(x).to(x.dtype if dtype is None else torch_type(dtype))


@torch_op("RandomNormalLike")
def random_normal_like(
    x: Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    """Normal numbers of the shape of the input."""
    return torch.randn_like(x, dtype=torch_type(dtype) if dtype else x.dtype) * scale + mean


@torch_op("RandomUniformLike")
def random_uniform_like(
    x: Tensor, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Tensor:
    """Uniform numbers of the shape of the input."""
    return torch.rand_like(x, dtype=torch_type(dtype) if dtype else x.dtype) * (high - low) + low
