"""Resize and Upsample, axis by axis: every slot of the output is a weighted sum of a few slots of the input."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunegraph.torch_twin.registry import StatedLengths, integers, torch_op


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis to resize: both lengths, the scale from one to the other, and where a crop begins and ends."""

    index: int
    before: int
    after: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _half_pixel(i: Tensor, a: Axis) -> Tensor:
    return (i + 0.5) / a.scale - 0.5


def _pytorch_half_pixel(i: Tensor, a: Axis) -> Tensor:
    return _half_pixel(i, a) if a.after > 1 else torch.zeros_like(i)


def _half_pixel_symmetric(i: Tensor, a: Axis) -> Tensor:
    shift = a.before / 2 * (1 - a.after / (a.scale * a.before))
    return shift + _half_pixel(i, a)


def _align_corners(i: Tensor, a: Axis) -> Tensor:
    return i * ((a.before - 1) / (a.after - 1)) if a.after > 1 else torch.zeros_like(i)


def _asymmetric(i: Tensor, a: Axis) -> Tensor:
    return i / a.scale


def _crop(i: Tensor, a: Axis) -> Tensor:
    if a.after == 1:
        return torch.full_like(i, (a.start + a.end) * (a.before - 1) / 2)
    return a.start * (a.before - 1) + i * ((a.end - a.start) * (a.before - 1) / (a.after - 1))


COORDINATES: dict[str, Callable[[Tensor, Axis], Tensor]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_crop_and_resize": _crop,
}
"""Where a slot of the output lies in the input (specification of Resize, `coordinate_transformation_mode`)."""

NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' kernel (1981), of support 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * a * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))


@torch_op("Resize")
def resize(
    x: Tensor,
    roi: StatedLengths | Sequence[float] | None = None,
    scales: StatedLengths | Sequence[float] | None = None,
    sizes: StatedLengths | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    version: int = 11,
) -> Tensor:
    """Resize by scales or to sizes; the gradient spreads over the slots that were read."""
    if version < 11 and roi is not None:  # scales came second
        return upsample(x, roi, mode=mode)
    outside: Tensor | None = None
    for a in _axes(x, roi, scales, sizes, axes, keep_aspect_ratio_policy):
        if a.before == a.after and a.scale == 1.0 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        slots = torch.arange(a.after, dtype=torch.float32, device=x.device)
        at = COORDINATES[coordinate_transformation_mode](slots, a)
        if mode == "nearest":
            taps, weights = NEAREST[_nearest(nearest_mode, a)](at)[:, None].long(), None
        else:
            taps, weights = _taps(at, a, mode, bool(antialias), bool(exclude_outside), cubic_coeff_a)
        x = _read(x, a, taps, weights)
        if coordinate_transformation_mode == "tf_crop_and_resize":
            beyond = ((at < 0) | (at > a.before - 1)).reshape(-1, *[1] * (x.dim() - 1 - a.index))
            outside = beyond if outside is None else outside | beyond
    return x if outside is None else torch.where(outside, extrapolation_value, x)


@torch_op("Upsample")
def upsample(x: Tensor, scales: StatedLengths | Sequence[float], *, mode: str = "nearest") -> Tensor:
    """Resize as it was before opset 11."""
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="old")


def _nearest(mode: str, a: Axis) -> str:
    """Before opset 11 ONNX Runtime rounds down, and up where an image gets smaller."""
    return mode if mode != "old" else "ceil" if a.scale < 1 else "floor"


def _floats(values: StatedLengths | Sequence[float]) -> list[float]:
    return [float(f) for f in (values.tolist() if isinstance(values, Tensor) else values)]


def _axes(
    x: Tensor,
    roi: StatedLengths | Sequence[float] | None,
    scales: StatedLengths | Sequence[float] | None,
    sizes: StatedLengths | None,
    axes: Sequence[int] | None,
    policy: str,
) -> list[Axis]:
    where = [k % x.dim() for k in axes] if axes is not None else list(range(x.dim()))
    lengths = [x.shape[k] for k in where]
    if sizes is not None and integers(sizes):
        after = integers(sizes)
        factors = [m / n for n, m in zip(lengths, after, strict=True)]
        if policy != "stretch":
            factors = [min(factors) if policy == "not_larger" else max(factors)] * len(factors)
            after = [math.floor(n * f + 0.5) for n, f in zip(lengths, factors, strict=True)]
    else:
        assert scales is not None
        factors = _floats(scales)
        after = [math.floor(n * f) for n, f in zip(lengths, factors, strict=True)]
    corners = (_floats(roi) if roi is not None else []) or [0.0] * len(where) + [1.0] * len(where)
    return [
        Axis(k, n, m, f, start, end)
        for k, n, m, f, start, end in zip(
            where, lengths, after, factors, corners[: len(where)], corners[len(where) :], strict=True
        )
    ]


def _taps(
    at: Tensor, a: Axis, mode: str, antialias: bool, exclude_outside: bool, cubic_coeff_a: float
) -> tuple[Tensor, Tensor]:
    """The slots that each output reads and their weights, `[outputs, taps]`; a smaller image reads more of them."""
    scale = min(a.scale, 1.0) if antialias else 1.0
    support = 1 if mode == "linear" else 2
    first = math.floor(-support / scale) + 1
    floor = torch.floor(at)[:, None]
    taps = floor + torch.arange(first, 2 - first, device=at.device)
    distance = ((taps - at[:, None]) * scale).abs()
    weights = _triangle(distance) if mode == "linear" else _cubic(distance, cubic_coeff_a)
    if exclude_outside:
        weights = torch.where((taps >= 0) & (taps < a.before), weights, 0.0)
    return taps.long(), weights / weights.sum(-1, keepdim=True)


def _read(x: Tensor, a: Axis, taps: Tensor, weights: Tensor | None) -> Tensor:
    taps = taps.clamp(0, a.before - 1)
    if weights is None:
        return x.index_select(a.index, taps[:, 0])
    shape = (-1, *[1] * (x.dim() - 1 - a.index))
    terms = [
        x.index_select(a.index, taps[:, k]) * weights[:, k].to(x.dtype).reshape(shape) for k in range(taps.shape[1])
    ]
    return functools.reduce(torch.add, terms)
