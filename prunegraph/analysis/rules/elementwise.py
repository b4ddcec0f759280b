"""Ops that work slot by slot: operands broadcast against each other, and every axis passes through."""

from __future__ import annotations

from collections.abc import Sequence

from prunegraph.analysis.axes import Expr, Fresh, Prod, Ref
from prunegraph.analysis.ops import EVERY, FIRST
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView

MICROSOFT = "com.microsoft"


def broadcast(source: Sequence[Ref], target: Sequence[Ref | Fresh]) -> AxisRule:
    """`source` is numpy-broadcast to `target`: aligned from the right, length one leaves no constraint."""
    equal: list[tuple[Expr, Expr]] = []
    pins: list[tuple[Expr, str]] = []
    for a, b in zip(reversed(source), reversed(target), strict=False):
        if a.size == b.size:
            equal.append((a, b))
        elif any(n != 1 for n in a.size):
            pins += [(a, "broadcasts in some runs and not in others"), (b, "broadcasts in some runs and not in others")]
    return AxisRule(equal=tuple(equal), pins=tuple(pins))


def pointwise(node: NodeView, *inputs: int) -> AxisRule:
    """The named inputs (all, if none is named) broadcast to every output."""
    rule = AxisRule()
    for target in node.outputs:
        for index in inputs or range(len(node.inputs)):
            source = node.optional_input(index)
            if source is not None and target is not None:
                rule += broadcast(source, target)
    return rule


_UNARY = "Acos Acosh Atanh BitwiseNot Cosh IsInf IsNaN Log Not Shrink ThresholdedRelu"
_UNARY_AT_ZERO = "Asin Asinh Atan Celu Elu Gelu HardSwish LeakyRelu Mish Selu Sin Sinh Swish Tan"
_NARY = "And BitShift BitwiseAnd BitwiseOr BitwiseXor Or Pow Xor"
_COMPARE = "Equal Greater GreaterOrEqual Less LessOrEqual Mod"


@axis_rule(*_UNARY.split(), pointwise=True)
@axis_rule(*_UNARY_AT_ZERO.split(), pointwise=True, keeps_zero=True)
@axis_rule("Ceil", "Floor", "Round", "Sign", pointwise=True, keeps_zero=True, jumps=True)
@axis_rule("Cast", "Identity", carries=FIRST, keeps_order=True, moves=True)
@axis_rule("Neg", moves=True, pointwise=True, keeps_zero=True)
@axis_rule("Abs", "Relu", "Sqrt", nonnegative=True, pointwise=True, keeps_zero=True)
@axis_rule("Exp", exponential=True, lifts_zero=True, pointwise=True)
@axis_rule("Cos", "HardSigmoid", "Reciprocal", "Sigmoid", "Softplus", lifts_zero=True, pointwise=True)
@axis_rule("Erf", "Softsign", "Tanh", bounded=True, pointwise=True, keeps_zero=True)
@axis_rule("Bernoulli", random=True)
def unary(node: NodeView) -> AxisRule:
    """Every axis passes through."""
    return pointwise(node, 0)


@axis_rule(*_NARY.split(), broadcasts=True, pointwise=True)
@axis_rule(*_COMPARE.split(), broadcasts=True, pointwise=True, jumps=True)
@axis_rule("Max", "Min", broadcasts=True, pointwise=True, keeps_zero=True)
@axis_rule("Mean", broadcasts=True, mixes=EVERY, pointwise=True, keeps_zero=True)
@axis_rule("Where", broadcasts=True, mixes=(1, 2), pointwise=True)
@axis_rule("Div", "Mul", broadcasts=True, linear=True, multiplies=True)
@axis_rule("PRelu", parameters=(1,), pointwise=True)
def nary(node: NodeView) -> AxisRule:
    """Operands broadcast; every axis passes through."""
    return pointwise(node)


@axis_rule("Add", "Sum", broadcasts=True, adds=True, linear=True, mixes=EVERY, pointwise=True, keeps_zero=True)
@axis_rule("Sub", broadcasts=True, linear=True, mixes=EVERY, pointwise=True, keeps_zero=True)
def add(node: NodeView) -> AxisRule:
    """Operands broadcast; activations are joined along the axes that they all have."""
    activations = [x for x, is_weight in zip(node.inputs, node.weights, strict=True) if x is not None and not is_weight]
    joins = tuple(ref for x in activations for ref in x if not node.one(ref)) if node.op != "Sub" else ()
    return pointwise(node) + AxisRule(joins=joins)


@axis_rule("Clip", pointwise=True)
@axis_rule("CastLike", "Trilu", "EyeLike")
@axis_rule("Dropout", "RandomNormalLike", "RandomUniformLike", random=True)
def first_operand(node: NodeView) -> AxisRule:
    """Every axis of the first input passes through; the other inputs are scalars (or a type)."""
    placed = node.input(0)[-2:] if node.op in ("Trilu", "EyeLike") else ()
    pins = tuple((ref, f"{node.op} depends on the position") for ref in placed)
    free = () if node.op != "CastLike" else tuple((ref, ref) for ref in node.input(1))  # only its type counts
    return pointwise(node, 0) + AxisRule(equal=free, pins=pins)


@axis_rule("QuantizeLinear", "DequantizeLinear", quantizes=True, fixed=(1,))
def quantize(node: NodeView) -> AxisRule:
    """Every axis passes through; a vector of scales or zero points belongs to `axis`, a tensor to its whole blocks."""
    x = node.input(0)
    rule = pointwise(node, 0)
    if not x:
        return rule
    axis = node.attr("axis", 1) % len(x)
    block = int(node.attr("block_size", 0))
    for index in (1, 2):
        scale = node.optional_input(index)
        if scale and len(scale) == 1 and not node.one(scale[0]):
            rule += AxisRule(equal=((scale[0], x[axis]),))
        elif scale and len(scale) > 1:
            inner = node.fresh((block,) * node.probes, "block", "quantized in blocks")
            pairs = enumerate(zip(x, scale, strict=True))
            rule += AxisRule(equal=tuple((a, Prod((b, inner)) if k == axis else b) for k, (a, b) in pairs))
    return rule
