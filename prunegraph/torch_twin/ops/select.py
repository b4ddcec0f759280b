"""Concat, Slice, Gather and other ops that join axes or take parts out of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.registry import MICROSOFT, StatedLengths, integers, torch_op


@torch_op("Concat")
def concat(*parts: Tensor, axis: int = 1) -> Tensor:
    """`y = x0 + x1 + …` along one axis."""
    return torch.cat(parts, axis)


@torch_op("Split")
def split(
    x: Tensor, split: StatedLengths | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int = 1
) -> tuple[Tensor, ...]:
    """Parts of stated lengths, or of equal ones, the last of which may be shorter."""
    if split is not None:
        lengths = integers(split)
    else:
        count = num_outputs or outputs
        length = math.ceil(x.shape[axis] / count)
        lengths = [*[length] * (count - 1), x.shape[axis] - length * (count - 1)]
    parts: tuple[Tensor, ...] = torch.split(x, lengths, axis)
    return parts


@torch_op("Slice")
def slice_(
    x: Tensor,
    starts: StatedLengths,
    ends: StatedLengths,
    axes: StatedLengths | None = None,
    steps: StatedLengths | None = None,
) -> Tensor:
    """Slices as Python has them, backwards too."""
    first, last = integers(starts), integers(ends)
    where = integers(axes) if axes is not None else list(range(len(first)))
    strides = integers(steps) if steps is not None else [1] * len(first)
    x = x.view_as(x)
    for start, end, k, step in zip(first, last, where, strides, strict=True):
        taken = range(*slice(start, end, step).indices(x.shape[k]))
        if step > 0:
            x = x[(slice(None),) * (k % x.dim()) + (slice(taken.start, max(taken.start, taken.stop), step),)]
        else:
            x = x.index_select(k, torch.tensor(list(taken), dtype=torch.long, device=x.device))
    return x


def wrapped(indices: Tensor, length: int) -> Tensor:
    """Positions counted from the start; negative ones count from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + length, indices)


@torch_op("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """`y = x[:axis] ++ indices ++ x[axis+1:]`."""
    axis %= x.dim()
    taken = x.index_select(axis, wrapped(indices.reshape(-1), x.shape[axis]))
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@torch_op("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """One slot for every index, in its own row of the other axes."""
    return torch.gather(x, axis, wrapped(indices, x.shape[axis]))


@torch_op("GatherND")
@torch_op("GatherND", domain=MICROSOFT)
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Rows of positions `[…, depth]` become what stands there."""
    rows = [
        torch.arange(n, device=x.device).reshape(-1, *[1] * (indices.dim() - 2 - k))
        for k, n in enumerate(x.shape[:batch_dims])
    ]
    return x[(*rows, *indices.long().unbind(-1))]


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@torch_op("ScatterElements")
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    """Every update goes to its index, in its own row of the other axes."""
    at = wrapped(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, at, updates)
    return x.scatter_reduce(axis, at, updates, _REDUCE[reduction])


@torch_op("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Every update goes to its row of positions `[…, depth]`."""
    if reduction in ("none", "add"):
        return x.index_put(indices.long().unbind(-1), updates, accumulate=reduction == "add")
    flat = torch.zeros(indices.shape[:-1], dtype=torch.long, device=x.device)
    depth = indices.shape[-1]
    for k, n in enumerate(x.shape[:depth]):
        flat = flat * n + wrapped(indices[..., k], n)
    window = math.prod(x.shape[depth:])
    where = (flat.reshape(-1, 1) * window + torch.arange(window, device=x.device)).reshape(-1)
    return x.reshape(-1).scatter_reduce(0, where, updates.reshape(-1), _REDUCE[reduction]).reshape(x.shape)


@torch_op("Pad")
def pad(
    x: Tensor,
    pads: StatedLengths,
    constant_value: StatedLengths | Sequence[float] | None = None,
    axes: StatedLengths | None = None,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    """Slots added before and after, or taken away where an amount is negative."""
    amounts = integers(pads)
    where = [k % x.dim() for k in integers(axes)] if axes is not None else list(range(x.dim()))
    pairs = dict(zip(where, zip(amounts[: len(where)], amounts[len(where) :], strict=True), strict=True))
    if mode == "constant":
        if isinstance(constant_value, Tensor):
            constant_value = constant_value.reshape(-1).tolist()
        filler = constant_value[0] if constant_value else value
        return functional.pad(x, [n for k in reversed(range(x.dim())) for n in pairs.get(k, (0, 0))], value=filler)
    for k, (before, after) in pairs.items():
        if before or after:
            x = x.index_select(k, _mirrored(torch.arange(-before, x.shape[k] + after), x.shape[k], mode).to(x.device))
    return x


def _mirrored(at: Tensor, length: int, mode: str) -> Tensor:
    """Positions beyond the ends as positions within."""
    if mode == "edge":
        return at.clamp(0, length - 1)
    if mode == "wrap":
        return at % length
    at = at % max(1, 2 * (length - 1))
    return torch.minimum(at, 2 * (length - 1) - at)


@torch_op("OneHot")
def one_hot(indices: Tensor, depth: StatedLengths, values: Tensor, *, axis: int = -1) -> Tensor:
    """`off` everywhere and `on` at the index; an index out of range is nowhere."""
    (count,) = integers(depth)
    off, on = values.unbind()
    at = wrapped(indices, count).unsqueeze(axis)
    slots = torch.arange(count, device=indices.device)
    axis %= at.dim()
    return torch.where(at == slots.reshape(-1, *[1] * (at.dim() - 1 - axis)), on, off)


@torch_op("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`x` where the condition holds, `y` elsewhere."""
    return torch.where(condition, x, y)
