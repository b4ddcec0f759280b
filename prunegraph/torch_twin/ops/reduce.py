"""Reductions over axes: sums, means, extremes, norms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim=keep)
    total = torch.sum(x, axes, keepdim=keep)
    return torch.div(total, x.numel() // total.numel(), rounding_mode="trunc").to(x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((k % x.dim() for k in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: torch.abs(x).sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": _mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}


@torch_op(*_REDUCTIONS)
def reduction(
    x: Tensor, axes: StatedLengths | None = None, *, op: str, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """Over the stated axes; over all of them where none are stated, unless that shall do nothing."""
    along = integers(axes) if axes is not None else []
    if not along:
        if noop_with_empty_axes:
            return x.view_as(x)
        along = list(range(x.dim()))
    if not along:  # a number without axes
        x, along, keepdims = x.reshape(1), [0], 0
    return _REDUCTIONS[op](x, along, bool(keepdims))


@torch_op("ArgMax", "ArgMin")
def arg(x: Tensor, *, op: str, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Where along an axis the largest or smallest is, the first of equals or the last."""
    find = torch.argmax if op == "ArgMax" else torch.argmin
    if not select_last_index:
        return find(x, axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=bool(keepdims))
