"""Contractions: MatMul, Gemm and Einsum."""

from __future__ import annotations

import torch
from torch import Tensor

from prunegraph.torch_twin.registry import torch_op


@torch_op("MatMul")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`... i k, ... k j -> ... i j`, with vectors on either side."""
    return torch.matmul(a, b)


@torch_op("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 1,
) -> Tensor:
    """`alpha·A·B + beta·C` with either side transposed."""
    a, b = a.T if transA else a, b.T if transB else b
    if c is not None and alpha == beta == 1:
        return torch.addmm(c, a, b)
    y = torch.matmul(a, b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@torch_op("Einsum")
def einsum(*operands: Tensor, equation: str) -> Tensor:
    """The equation of the node itself."""
    return torch.einsum(equation, *operands)
