"""Elementwise ops: operands broadcast against each other."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from prunegraph.torch_twin.dtypes import torch_type
from prunegraph.torch_twin.registry import MICROSOFT, torch_function, torch_op

for _op, _function in {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Xor": torch.logical_xor,
}.items():
    torch_function(_op, _function)


def lined_up(a: Tensor, b: Tensor, axis: int | None) -> Tensor:
    """`b` as it broadcasts to `a`: from the right, or (before opset 7) from `axis` on."""
    return b if axis is None else b.reshape(*b.shape, *[1] * (a.dim() - b.dim() - axis % a.dim()))


@torch_op("Add")
def add(a: Tensor, b: Tensor, *, axis: int | None = None, broadcast: int = 1) -> Tensor:
    """Add: `a + b`, broadcast."""
    return torch.add(a, lined_up(a, b, axis))


@torch_op("Sub")
def subtract(a: Tensor, b: Tensor, *, axis: int | None = None, broadcast: int = 1) -> Tensor:
    """Sub: `a - b`, broadcast."""
    return torch.sub(a, lined_up(a, b, axis))


@torch_op("Mul")
def multiply(a: Tensor, b: Tensor, *, axis: int | None = None, broadcast: int = 1) -> Tensor:
    """Mul: `a · b`, broadcast."""
    return torch.mul(a, lined_up(a, b, axis))


@torch_op("Div")
def divide(a: Tensor, b: Tensor, *, axis: int | None = None, broadcast: int = 1) -> Tensor:
    """`a / b`, towards zero between integers."""
    return torch.div(a, lined_up(a, b, axis), rounding_mode=None if a.is_floating_point() else "trunc")


@torch_op("Pow")
def power(a: Tensor, b: Tensor) -> Tensor:
    """`a` to the power `b`, in the type of `a`."""
    y = torch.pow(a, b)
    return y if y.dtype == a.dtype else y.to(a.dtype)


@torch_op("Mod")
def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The remainder, with the sign of `b`, or of `a` where fmod says so."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@torch_op("Sum")
def sum_(*x: Tensor) -> Tensor:
    """Elementwise over all operands."""
    return reduce(torch.add, x) if len(x) > 1 else x[0].view_as(x[0])


@torch_op("Mean")
def mean(*x: Tensor) -> Tensor:
    """Elementwise over all operands."""
    return reduce(torch.add, x) / len(x)


@torch_op("Max")
def maximum(*x: Tensor) -> Tensor:
    """Elementwise over all operands."""
    return reduce(torch.maximum, x) if len(x) > 1 else x[0].view_as(x[0])


@torch_op("Min")
def minimum(*x: Tensor) -> Tensor:
    """Elementwise over all operands."""
    return reduce(torch.minimum, x) if len(x) > 1 else x[0].view_as(x[0])


@torch_op("BitShift")
def shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    """Bits moved left or right."""
    return torch.bitwise_left_shift(a, b) if direction == "LEFT" else torch.bitwise_right_shift(a, b)


@torch_op("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """`slope · x` below zero."""
    return torch.where(x < 0, slope * x, x)


@torch_op("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """`alpha · (exp(x) - 1)` below zero."""
    return functional.elu(x, alpha)


@torch_op("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """`alpha · (exp(x / alpha) - 1)` below zero."""
    return functional.celu(x, alpha)


@torch_op("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    """Selu: gamma times the Elu of the input."""
    return gamma * functional.elu(x, alpha)


@torch_op("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Gelu: `x · Φ(x)`."""
    return functional.gelu(x, approximate=approximate)


@torch_op("Gelu", domain=MICROSOFT)
def microsoft_gelu(x: Tensor) -> Tensor:
    """Gelu: `x · Φ(x)`."""
    return functional.gelu(x)


@torch_op("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """`x · sigmoid(alpha · x)`."""
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@torch_op("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """A straight line between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


@torch_op("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """`alpha · x` below zero."""
    return functional.leaky_relu(x, alpha)


@torch_op("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Zero up to alpha."""
    return torch.where(x > alpha, x, 0)


@torch_op("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Towards zero by bias, zero within lambd."""
    return torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, 0))


@torch_op("Clip")
def clip(x: Tensor, min: Tensor | float | None = None, max: Tensor | float | None = None) -> Tensor:
    """Every number brought between two bounds."""
    if min is None and max is None:
        return x.view_as(x)
    low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) if b is not None else None for b in (min, max))
    return torch.clamp(x, low, high)


@torch_op("IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Whether a number is infinite, of the signs that count."""
    return torch.isposinf(x) & bool(detect_positive) | torch.isneginf(x) & bool(detect_negative)


@torch_op("Identity")
def identity(x: Tensor) -> Tensor:
    """The operand itself, as a new view."""
    return x.view_as(x)


@torch_op("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """As another type; float16 and bfloat16 are float32."""
    return _as(x, torch_type(to))


@torch_op("CastLike")
def cast_like(x: Tensor, other: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """As the type of another operand."""
    return _as(x, other.dtype)


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.view_as(x) if x.dtype == dtype else x.to(dtype)


@torch_op("BitCast")
def bit_cast(x: Tensor, *, to: int) -> Tensor:
    """The same bits, read as another type."""
    return x.view(torch_type(to))


@torch_op("Dropout")
def dropout(
    x: Tensor,
    ratio: Tensor | float = 0.5,
    training_mode: Tensor | None = None,
    *,
    training: bool,
    seed: int | None = None,
    is_test: int = 0,
    consumed_inputs: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Drops while the module trains, whatever the exporter's `training_mode` was."""
    share = float(ratio)
    if not training or share == 0:
        return x.view_as(x), torch.ones_like(x, dtype=torch.bool)
    keep = torch.rand_like(x) >= share
    return torch.where(keep, x / (1 - share), 0), keep


@torch_op("Trilu")
def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """The upper or lower triangle of matrices."""
    diagonal = 0 if k is None else int(k.item())
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@torch_op("Trilu", domain=MICROSOFT)
def microsoft_trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """The upper or lower triangle of matrices."""
    return trilu(x, k, upper=upper)


@torch_op("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on the k-th diagonal."""
    ones = torch.ones_like(x, dtype=x.dtype if dtype is None else torch_type(dtype))
    return torch.triu(torch.tril(ones, k), k)
