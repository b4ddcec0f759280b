"""Normalization and softmax ops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.registry import MICROSOFT, torch_op


def _along(vector: Tensor, x: Tensor) -> Tensor:
    """A vector of channels, as it broadcasts to `[N, C, …]`."""
    return vector.reshape(1, -1, *[1] * (x.dim() - 2)) if x.dim() > 1 else vector


@torch_op("BatchNormalization")
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
    is_test: int = 0,
    consumed_inputs: list[int] | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """By the statistics of the file, in training too, unless the node itself says `training_mode`."""
    if not training_mode:
        root = torch.rsqrt(variance + epsilon)
        factor = scale * root
        return x * _along(factor, x) + _along(bias - mean * factor, x)
    axes = [k for k in range(x.dim()) if k != 1]
    var, centre = torch.var_mean(x, axes, correction=0)
    y = (x - _along(centre, x)) * _along(torch.rsqrt(var + epsilon) * scale, x) + _along(bias, x)
    running = (mean * momentum + centre * (1 - momentum), variance * momentum + var * (1 - momentum))
    return (y, *running)


@torch_op("LayerNormalization")
def layer_normalization(
    x: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    outputs: int = 1,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Statistics over every axis from `axis` on; then mean and inverse deviation, where they are asked for."""
    lengths = x.shape[axis:]
    if outputs == 1 and all(p is None or p.shape == lengths for p in (scale, bias)):
        return functional.layer_norm(x, lengths, scale, bias, epsilon)
    var, centre = torch.var_mean(x, list(range(axis % x.dim(), x.dim())), correction=0, keepdim=True)
    inverse = torch.rsqrt(var + epsilon)
    y = (x - centre) * inverse
    y = y if scale is None else y * scale
    return (y if bias is None else y + bias), centre, inverse


@torch_op("LayerNormalization", domain=MICROSOFT)
def microsoft_layer_normalization(
    x: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    outputs: int = 1,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """LayerNormalization as com.microsoft has it."""
    return layer_normalization(x, scale, bias, outputs=outputs, axis=axis, epsilon=epsilon)


@torch_op("RMSNormalization")
def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Divided by the root of the mean square over every axis from `axis` on."""
    return simplified(x, scale, axis=axis, epsilon=epsilon)[0]


@torch_op("SimplifiedLayerNormalization")
@torch_op("SimplifiedLayerNormalization", domain=MICROSOFT)
def simplified(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Tensor, Tensor]:
    """RMSNormalization, and the inverse root."""
    square = torch.mean(x * x, list(range(axis % x.dim(), x.dim())), keepdim=True)
    inverse = torch.rsqrt(square + epsilon)
    return x * inverse * scale, inverse


@torch_op("InstanceNormalization")
def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, consumed_inputs: list[int] | None = None
) -> Tensor:
    """Statistics over space, of every channel of every example."""
    var, centre = torch.var_mean(x, list(range(2, x.dim())), correction=0, keepdim=True)
    return (x - centre) * torch.rsqrt(var + epsilon) * _along(scale, x) + _along(bias, x)


@torch_op("GroupNormalization")
def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Statistics over the channels of a group and space; scale and bias by channel, or (opset 18) by group."""
    channels = x.shape[1]
    scale, bias = (p.repeat_interleave(channels // len(p)) for p in (scale, bias))
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@torch_op("LRN")
def local_response(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """Divided by a power of what neighbouring channels sum up to."""
    before, after = (size - 1) // 2, size // 2
    squares = functional.pad(x * x, [0, 0] * (x.dim() - 2) + [before, after])
    return x * (bias + alpha / size * squares.unfold(1, size, 1).sum(-1)) ** -beta


def _rows(x: Tensor, axis: int | None, version: int) -> tuple[Tensor, int]:
    """What a Softmax runs along: one axis, or (before opset 13) all from `axis` on as one."""
    if version >= 13:
        return x, -1 if axis is None else axis
    axis = (1 if axis is None else axis) % max(x.dim(), 1)
    return x.reshape(math.prod(x.shape[:axis]), -1), 1


@torch_op("Softmax")
def softmax(x: Tensor, *, version: int, axis: int | None = None) -> Tensor:
    """Over one axis, or over all from it on before opset 13."""
    rows, k = _rows(x, axis, version)
    return torch.softmax(rows, k).reshape(x.shape)


@torch_op("LogSoftmax")
def log_softmax(x: Tensor, *, version: int, axis: int | None = None) -> Tensor:
    """Over one axis, or over all from it on before opset 13."""
    rows, k = _rows(x, axis, version)
    return torch.log_softmax(rows, k).reshape(x.shape)


@torch_op("Hardmax")
def hardmax(x: Tensor, *, version: int, axis: int | None = None) -> Tensor:
    """One at the first of the largest along an axis, zero elsewhere."""
    rows, k = _rows(x, axis, version)
    return torch.zeros_like(rows).scatter(k, rows.argmax(k, keepdim=True), 1).reshape(x.shape)


@torch_op("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Divided by the norm along an axis; a norm of zero stays."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, 1, norm)


@torch_op("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """`(x - mean) / (deviation + 1e-9)`."""
    var, centre = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - centre) / (torch.sqrt(var) + 1e-9)
