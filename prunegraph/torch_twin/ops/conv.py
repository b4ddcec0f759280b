"""Convolutions and pools: `[N, C, *space]` of any rank, padded on either side by an amount of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op

Ints = Sequence[int]


class ConvAttributes(TypedDict, total=False):
    """Attributes of every op that is a Conv with something before or behind it; the defaults are those of `conv`."""

    auto_pad: str
    dilations: Ints | None
    group: int
    kernel_shape: Ints | None
    pads: Ints | None
    strides: Ints | None


class PoolAttributes(TypedDict, total=False):
    """Attributes of every op that works window by window; the defaults are those of `Windows`."""

    auto_pad: str
    ceil_mode: int
    dilations: Ints | None
    kernel_shape: Required[Ints]
    pads: Ints | None
    strides: Ints | None


def margins(
    lengths: Ints, kernel: Ints, strides: Ints, dilations: Ints, pads: Ints | None, auto_pad: str
) -> tuple[list[int], list[int]]:
    """What is added before and after each axis of space, as stated or as `auto_pad` says."""
    if auto_pad in ("NOTSET", "VALID"):
        stated = list(pads) if pads and auto_pad == "NOTSET" else [0] * (2 * len(lengths))
        return stated[: len(lengths)], stated[len(lengths) :]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    total = [max(0, (math.ceil(n / s) - 1) * s + span - n) for n, s, span in zip(lengths, strides, spans, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def padded(x: Tensor, before: Ints, after: Ints, value: float = 0.0) -> Tensor:
    """`x` with its last axes made longer, or shorter where an amount is negative."""
    amounts = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, amounts, value=value) if any(amounts) else x


@torch_op("Conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Conv, whose two sides may be padded by different amounts."""
    ones = [1] * (weight.dim() - 2)
    dilations, strides = list(dilations or ones), list(strides or ones)
    before, after = margins(x.shape[2:], weight.shape[2:], strides, dilations, pads, auto_pad)
    if before == after:
        return torch.convolution(x, weight, bias, strides, before, dilations, False, [0], group)
    return torch.convolution(padded(x, before, after), weight, bias, strides, [0], dilations, False, [0], group)


@torch_op("ConvTranspose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The whole sum first, then what `pads` takes away at either side and what `output_padding` adds, then the bias."""
    rank = weight.dim() - 2
    dilations, strides = list(dilations or [1] * rank), list(strides or [1] * rank)
    y = torch.convolution(x, weight, None, strides, [0] * rank, dilations, True, [0] * rank, group)
    whole, more = list(y.shape[2:]), list(output_padding or [0] * rank)
    if output_shape is None and auto_pad in ("NOTSET", "VALID"):
        before, after = margins(whole, whole, strides, dilations, pads, auto_pad)
    else:
        natural = [min(n * s, w + m) for n, s, w, m in zip(x.shape[2:], strides, whole, more, strict=True)]
        target = list(output_shape or natural)[-rank:]
        total = [max(0, n + m - w) for n, m, w in zip(whole, more, target, strict=True)]
        before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        after = [n + m - b - w for n, m, b, w in zip(whole, more, before, target, strict=True)]
    y = padded(y, [-b for b in before], [m - a for m, a in zip(more, after, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


class Windows:
    """Where the windows of a pool lie: a margin on either side, and what `ceil_mode` lets hang over the end."""

    def __init__(
        self,
        x: Tensor,
        *,
        kernel_shape: Ints,
        auto_pad: str = "NOTSET",
        ceil_mode: int = 0,
        dilations: Ints | None = None,
        pads: Ints | None = None,
        strides: Ints | None = None,
    ) -> None:
        """Count the windows of every axis; one that would begin in the margin after it is dropped."""
        kernel, ones = list(kernel_shape), [1] * len(kernel_shape)
        self.kernel, self.dilations, self.strides = kernel, list(dilations or ones), list(strides or ones)
        lengths = x.shape[2:]
        self.before, self.after = margins(lengths, kernel, self.strides, self.dilations, pads, auto_pad)
        self.over = []
        for n, k, d, s, b, a in zip(
            lengths, kernel, self.dilations, self.strides, self.before, self.after, strict=True
        ):
            room = n + b + a - ((k - 1) * d + 1)
            count = (math.ceil(room / s) if ceil_mode and auto_pad == "NOTSET" else room // s) + 1
            if ceil_mode and (count - 1) * s >= n + b:
                count -= 1
            self.over.append(max(0, (count - 1) * s - room))

    def padded(self, x: Tensor, value: float) -> Tensor:
        """`x` with the margins filled by a value."""
        return padded(x, self.before, [a + o for a, o in zip(self.after, self.over, strict=True)], value)

    def split(self, x: Tensor) -> Tensor:
        """`[N, C, *windows, kernel]` of a padded `x`."""
        for axis, (k, d, s) in enumerate(zip(self.kernel, self.dilations, self.strides, strict=True)):
            x = x.unfold(axis + 2, (k - 1) * d + 1, s)[..., ::d]
        return x.flatten(-len(self.kernel))


@torch_op("MaxPool")
def max_pool(
    x: Tensor,
    *,
    storage_order: int = 0,
    **pool: Unpack[PoolAttributes],
) -> tuple[Tensor, Tensor]:
    """The largest of each window, and its position counted through the whole of `x`."""
    windows = Windows(x, **pool)
    floating = x if x.is_floating_point() else x.float()
    y, where = _MAX_POOL[len(windows.kernel)](
        windows.padded(floating, -math.inf),
        windows.kernel,
        windows.strides,
        dilation=windows.dilations,
        return_indices=True,
    )
    return y.to(x.dtype), _positions(where, x, windows, storage_order)


_MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def _positions(where: Tensor, x: Tensor, windows: Windows, storage_order: int) -> Tensor:
    """Positions within a padded plane as positions within the tensor, the last axis counted first or, if told, last."""
    outer = [n + b + a + o for n, b, a, o in zip(x.shape[2:], windows.before, windows.after, windows.over, strict=True)]
    inner = [p - b for p, b in zip(torch.unravel_index(where, outer), windows.before, strict=True)]
    axes = list(zip(inner, x.shape[2:], strict=True))
    flat, count = torch.zeros_like(where), 1
    for position, length in axes if storage_order else reversed(axes):
        flat, count = flat + position * count, count * length
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(inner))
    return flat + planes * count


@torch_op("MaxUnpool")
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: StatedLengths | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Every number at the position that MaxPool has told, zeros elsewhere."""
    rank = len(kernel_shape)
    pads, strides = pads or [0] * (2 * rank), strides or [1] * rank
    if output_shape is not None:
        shape = integers(output_shape)
    else:
        margin = [a + b for a, b in zip(pads[:rank], pads[rank:], strict=True)]
        space = [(n - 1) * s - m + k for n, s, m, k in zip(x.shape[2:], strides, margin, kernel_shape, strict=True)]
        shape = [*x.shape[:2], *space]
    return x.new_zeros(math.prod(shape)).index_put((indices.reshape(-1),), x.reshape(-1)).reshape(shape)


@torch_op("AveragePool")
def average_pool(
    x: Tensor,
    *,
    count_include_pad: int = 0,
    **pool: Unpack[PoolAttributes],
) -> Tensor:
    """The mean of each window over what lies in `x`, or in its stated margins too."""
    windows = Windows(x, **pool)
    inside = padded(torch.ones_like(x[:1, :1]), windows.before, windows.after, float(count_include_pad))
    counted = padded(inside, [0] * len(windows.over), windows.over)
    return windows.split(windows.padded(x, 0.0)).sum(-1) / windows.split(counted).sum(-1)


@torch_op("LpPool")
def lp_pool(
    x: Tensor,
    *,
    p: int = 2,
    **pool: Unpack[PoolAttributes],
) -> Tensor:
    """The p-norm of each window."""
    windows = Windows(x, **pool)
    return torch.linalg.vector_norm(windows.split(windows.padded(x, 0.0)), p, -1)


def _space(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@torch_op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """The mean over space."""
    return x.mean(_space(x), keepdim=True)


@torch_op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """The largest over space."""
    return x.amax(_space(x), keepdim=True)


@torch_op("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    """The p-norm over space."""
    return torch.linalg.vector_norm(x, p, _space(x), keepdim=True)


@torch_op("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """`(b·b·c)` or, with mode CRD, `(c·b·b)` channels become `c` channels of an image b times as large."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "CRD":
        y = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // b**2, h * b, w * b)


@torch_op("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """`c` channels become `b·b·c`."""
    n, c, h, w = x.shape
    b = blocksize
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)
