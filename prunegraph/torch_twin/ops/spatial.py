"""Ops about positions in an image or a signal: sampling at positions, patches, regions, spectra."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.ops.conv import Ints, conv, padded
from prunegraph.torch_twin.registry import MICROSOFT, StatedLengths, integers, torch_op

_MODES = {"linear": "bilinear", "cubic": "bicubic"}
"""The names of opset 20 for what was bilinear and bicubic before."""


@torch_op("GridSample")
@torch_op("GridSample", domain=MICROSOFT)
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """`[N, C, …]` read at `[N, …, 2]`."""
    return functional.grid_sample(x, grid, _MODES.get(mode, mode), padding_mode, bool(align_corners))


@torch_op("AffineGrid")
def affine_grid(theta: Tensor, size: StatedLengths, *, align_corners: int = 0) -> Tensor:
    """The grid of an affine map, in two or three dimensions."""
    return functional.affine_grid(theta, integers(size), bool(align_corners))


@torch_op("CenterCropPad")
def center_crop_pad(x: Tensor, shape: StatedLengths, *, axes: Sequence[int] | None = None) -> Tensor:
    """Cropped around the middle, or padded with zeros on both sides, axis by axis."""
    before, after = [0] * x.dim(), [0] * x.dim()
    for k, length in zip(axes if axes is not None else range(x.dim()), integers(shape), strict=True):
        more = length - x.shape[k]
        before[k] = more // 2 if more > 0 else -(-more // 2)
        after[k] = more - before[k]
    return padded(x, before, after)


@torch_op("Col2Im")
def columns_to_image(
    x: Tensor,
    image_shape: StatedLengths,
    block_shape: StatedLengths,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """`[N, C·block, positions]` summed up to `[N, C, …]`, in any number of dimensions."""
    image, block = integers(image_shape), integers(block_shape)
    rank = len(image)
    dilations, strides, pads = dilations or [1] * rank, strides or [1] * rank, list(pads or [0] * (2 * rank))
    outer = [n + b + a for n, b, a in zip(image, pads[:rank], pads[rank:], strict=True)]
    flat, columns = torch.zeros((), dtype=torch.long, device=x.device), x.shape[1] // math.prod(block)
    for k, (n, b, d, s) in enumerate(zip(outer, block, dilations, strides, strict=True)):
        count = (n - (b - 1) * d - 1) // s + 1
        inside = torch.arange(b, device=x.device).mul(d).reshape(-1, *[1] * (2 * rank - 1 - k))
        at = torch.arange(count, device=x.device).mul(s).reshape(-1, *[1] * (rank - 1 - k))
        flat = flat * n + inside + at
    terms = x.reshape(x.shape[0], columns, -1)
    y = terms.new_zeros(*terms.shape[:2], math.prod(outer)).index_add(2, flat.reshape(-1), terms)
    return padded(y.reshape(*y.shape[:2], *outer), [-b for b in pads[:rank]], [-a for a in pads[rank:]])


@torch_op("DeformConv")
def deformable_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Conv at shifted positions, read between pixels by bilinear interpolation (arXiv 1703.06211, 1811.11168)."""
    (n, c, *lengths), kernel, out = x.shape, weight.shape[2:], offset.shape[2:]
    dilations, strides, pads = dilations or [1, 1], strides or [1, 1], pads or [0, 0, 0, 0]
    shift = offset.reshape(n * offset_group, math.prod(kernel), 2, *out)
    at = []
    for k in range(2):
        tap = torch.arange(kernel[k], device=x.device) * dilations[k]
        taps = tap.repeat_interleave(kernel[1]) if k == 0 else tap.repeat(kernel[0])
        base = (torch.arange(out[k], device=x.device) * strides[k] - pads[k]).reshape(-1, *[1] * (1 - k))
        position = shift[:, :, k] + taps.reshape(-1, 1, 1) + base
        at.append((position * 2 + 1) / lengths[k] - 1)
    grid = torch.stack((at[1], at[0]), -1).flatten(1, 2)
    columns = functional.grid_sample(x.reshape(n * offset_group, -1, *lengths), grid, align_corners=False)
    columns = columns.reshape(n, offset_group, c // offset_group, math.prod(kernel), *out)
    if mask is not None:
        columns = columns * mask.reshape(n, offset_group, 1, math.prod(kernel), *out)
    columns = columns.reshape(n, group, -1, math.prod(out))
    y = torch.einsum("ngkp,gok->ngop", columns, weight.reshape(group, -1, columns.shape[2])).reshape(n, -1, *out)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


@torch_op("CausalConvWithState")
def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None, *, activation: str = "none"
) -> tuple[Tensor, Tensor]:
    """One filter a channel along time `[N, C, time]`, and the last positions for the next call."""
    carried = weight.shape[-1] - 1
    whole = padded(x, [carried], [0]) if past is None else torch.cat((past, x), -1)
    y = conv(whole, weight, bias, group=x.shape[1])
    return functional.silu(y) if activation in ("silu", "swish") else y, whole[..., whole.shape[-1] - carried :]


@torch_op("RoiAlign")
def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Regions read between pixels at a few points of every cell, which are averaged (arXiv 1703.06870)."""
    half = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    regions = []
    for box, which in zip(rois * spatial_scale - half, batch_indices.tolist(), strict=True):
        left, top, right, bottom = box.unbind()
        rows = _points(top, bottom, output_height, sampling_ratio, half)
        columns = _points(left, right, output_width, sampling_ratio, half)
        terms = _bilinear(x[int(which)], rows, columns)
        cells = (output_height, len(rows) // output_height, output_width, len(columns) // output_width)
        if mode == "avg":
            regions.append(sum(terms, torch.zeros(())).unflatten(2, cells[2:]).unflatten(1, cells[:2]).mean((2, 4)))
        else:
            # ONNX Runtime takes the largest of the weighted pixels, not of their sums.
            regions.append(torch.stack(terms).amax(0).unflatten(2, cells[2:]).unflatten(1, cells[:2]).amax((2, 4)))
    return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], output_height, output_width)


def _points(start: Tensor, end: Tensor, cells: int, ratio: int, half: float) -> Tensor:
    """Where a region is read along one axis; without the half pixel it is at least one pixel long."""
    length = end - start if half else (end - start).clamp(min=1)
    per_cell = ratio or math.ceil(length.item() / cells)
    steps = torch.arange(cells * per_cell, device=start.device) + 0.5
    return start + steps * (length / (cells * per_cell))


def _bilinear(image: Tensor, rows: Tensor, columns: Tensor) -> list[Tensor]:
    """The four weighted neighbours `[C, rows, columns]` of every point; beyond a pixel outside they are zero."""
    sides = []
    for at, length in ((rows, image.shape[1]), (columns, image.shape[2])):
        inside = (at >= -1) & (at <= length)
        at = at.clamp(0, length - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=length - 1)
        sides.append(((low, (1 - (at - low)) * inside), (high, (at - low) * inside)))
    return [image[:, i][:, :, j] * (a[:, None] * b) for (i, a), (j, b) in itertools.product(*sides)]


@torch_op("MaxRoiPool")
def max_roi_pool(x: Tensor, rois: Tensor, *, pooled_shape: Ints, spatial_scale: float = 1.0) -> Tensor:
    """The largest pixel of every cell of every region; cells begin and end at whole pixels."""
    regions = []
    for which, left, top, right, bottom in rois.tolist():
        rows = _cells(top, bottom, spatial_scale, pooled_shape[0], x.shape[2])
        columns = _cells(left, right, spatial_scale, pooled_shape[1], x.shape[3])
        image = x[int(which)]
        cells = [_largest(image[:, i:j, k:m]) for i, j in rows for k, m in columns]
        regions.append(torch.stack(cells, -1).reshape(-1, *pooled_shape))
    return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], *pooled_shape)


def _cells(start: float, end: float, scale: float, cells: int, length: int) -> list[tuple[int, int]]:
    first, last = (math.floor(abs(v * scale) + 0.5) * (1 if v >= 0 else -1) for v in (start, end))
    size = max(last - first + 1, 1) / cells
    bounds = [(first + math.floor(k * size), first + math.ceil((k + 1) * size)) for k in range(cells)]
    return [(min(max(i, 0), length), min(max(j, 0), length)) for i, j in bounds]


def _largest(image: Tensor) -> Tensor:
    return image.amax((1, 2)) if image.numel() else image.new_zeros(image.shape[0])
