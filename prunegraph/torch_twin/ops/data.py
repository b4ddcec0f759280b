"""Ops whose output depends on what the data says: ranks, running sums, chosen slots; caches written by position."""

from __future__ import annotations

import torch
from torch import Tensor

from prunegraph.torch_twin.dtypes import torch_type
from prunegraph.torch_twin.registry import MICROSOFT, StatedLengths, integers, torch_op


@torch_op("TopK")
def top_k(
    x: Tensor, k: StatedLengths | int, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """The k largest or smallest, in order; among equals the first."""
    (count,) = integers(k)
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def _running(x: Tensor, axis: StatedLengths, exclusive: int, reverse: int, first: float, run: str) -> Tensor:
    k = integers(axis)[0] % x.dim()
    x = x.flip(k) if reverse else x
    if exclusive:
        start = torch.full_like(x.narrow(k, 0, min(1, x.shape[k])), first)
        x = torch.cat((start, x.narrow(k, 0, max(0, x.shape[k] - 1))), k)
    y: Tensor = getattr(torch, run)(x, k, dtype=x.dtype)
    return y.flip(k) if reverse else y


@torch_op("CumSum")
def cumulative_sum(x: Tensor, axis: StatedLengths, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Every slot with all before it, or all before it alone."""
    return _running(x, axis, exclusive, reverse, 0, "cumsum")


@torch_op("CumProd")
def cumulative_product(x: Tensor, axis: StatedLengths, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Every slot times all before it, or those alone."""
    return _running(x, axis, exclusive, reverse, 1, "cumprod")


@torch_op("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """The first `lengths[b]` positions in time backwards, the rest as it is."""
    time = torch.arange(x.shape[time_axis], device=x.device)
    until = lengths.reshape(-1, 1)
    at = torch.where(time < until, until - 1 - time, time)
    at = at if batch_axis < time_axis else at.T
    shape = [n if k in (batch_axis % x.dim(), time_axis % x.dim()) else 1 for k, n in enumerate(x.shape)]
    return torch.gather(x, time_axis, at.reshape(shape).expand(x.shape))


@torch_op("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """The slots whose condition holds; of all slots in a row where no axis is given."""
    x, k = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(k, torch.nonzero(condition).reshape(-1))


@torch_op("NonZero")
def non_zero(x: Tensor) -> Tensor:
    """Positions `[axes, count]` of what is not zero."""
    return torch.nonzero(x).T


@torch_op("Unique")
def unique(x: Tensor, *, axis: int | None = None, sorted: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What occurs, where it occurs first, which of those each slot is, how often each occurs."""
    x, k = (x.reshape(-1), 0) if axis is None else (x, axis)
    _, inverse, counts = torch.unique(x, dim=k, return_inverse=True, return_counts=True)
    places = torch.arange(len(inverse), device=x.device)
    first = torch.full_like(counts, len(inverse)).scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = torch.argsort(first)
        first, counts, inverse = first[order], counts[order], torch.argsort(order)[inverse]
    return x.index_select(k, first), first, inverse, counts


@torch_op("Multinomial")
def multinomial(x: Tensor, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Tensor:
    """Classes `[batch, samples]` drawn by their unnormalized log-probabilities."""
    return torch.multinomial(torch.softmax(x, -1), sample_size, replacement=True).to(torch_type(dtype))


@torch_op("Det")
def determinant(x: Tensor) -> Tensor:
    """Of every matrix of a stack."""
    return torch.linalg.det(x)


@torch_op("Inverse", domain=MICROSOFT)
def inverse(x: Tensor) -> Tensor:
    """Of every matrix of a stack."""
    return torch.linalg.inv(x)


@torch_op("TensorScatter")
def tensor_scatter(
    past: Tensor, update: Tensor, write_indices: Tensor | None = None, *, axis: int = -2, mode: str = "linear"
) -> Tensor:
    """A cache with new slots written from `write_indices[b]` on, around the end where it is circular."""
    axis %= past.dim()
    start = past.new_zeros(past.shape[0], dtype=torch.long) if write_indices is None else write_indices.long()
    at = start.reshape(-1, *[1] * (past.dim() - 1)) + torch.arange(update.shape[axis], device=past.device).reshape(
        -1, *[1] * (past.dim() - 1 - axis)
    )
    at = at % past.shape[axis] if mode == "circular" else at
    return past.scatter(axis, at.expand(update.shape), update)
