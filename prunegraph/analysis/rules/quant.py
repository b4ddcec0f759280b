"""Quantized arithmetic: what adds nothing to a sum is the zero point.

Scales and zero points are constants, or come from the data, and then from its range and zero (DynamicQuantizeLinear).
Either way zeroing a slot and removing it are equal, as they are for floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, NodeView, Reduce, Reduction
from prunegraph.analysis.rules.attention import fused_qkv
from prunegraph.analysis.rules.contract import equation
from prunegraph.analysis.rules.conv import conv, pool
from prunegraph.analysis.rules.elementwise import MICROSOFT, broadcast, pointwise, quantize
from prunegraph.analysis.rules.fused import added
from prunegraph.analysis.rules.norm import along_axis
from prunegraph.analysis.rules.select import concat
from prunegraph.analysis.rules.views import channels_first, picked

axis_rule("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT, quantizes=True, fixed=(1,))(quantize)


def quantized(rule: AxisRule, zeros: Mapping[int, int], operands: tuple[int, int] | None = None) -> AxisRule:
    """The rule with sums that leave out zero points, given as operand -> input that holds its zero point."""
    reduces = tuple(replace(r, zero=zeros[r.ref.index]) if r.ref.index in zeros else r for r in rule.reduces)
    contractions = tuple(replace(c, operands=operands or c.operands) for c in rule.contractions)
    return replace(rule, reduces=reduces, contractions=contractions)


def _parameters(node: NodeView, operand: int, axis: int, *inputs: int) -> AxisRule:
    """Scales and zero points of an operand: one number, or a vector along `axis`, or shaped to broadcast."""
    x = node.input(operand)
    rule = AxisRule()
    for parameter in (node.optional_input(k) for k in inputs):
        if parameter and len(parameter) == 1 and not node.one(parameter[0]) and len(x) >= -axis:
            rule += AxisRule(equal=((parameter[0], x[axis]),))
        elif parameter and len(parameter) > 1:
            rule += broadcast(parameter, x)
    return rule


def _product(node: NodeView, text: str, a: tuple[int, ...], b: tuple[int, ...], *columns: int) -> AxisRule:
    """A product of `a` and `b`, each (operand, zero point, scales …); `columns` belong to the last axis of the output.

    Raises:
        CannotAnalyze: a zero point a row, which a mask of columns cannot stand for.
    """
    point = node.optional_input(a[1])
    if point and any(not node.one(ref) for ref in point):
        raise CannotAnalyze("a zero point a row")
    rule = equation(node, text, (a[0], b[0]))
    column = 0 if ", j k" in text else -1
    rule += _parameters(node, a[0], -2, *a[1:]) + _parameters(node, b[0], column, *b[1:])
    for k in columns:
        rule += broadcast(node.optional_input(k) or (), node.output())
    return quantized(rule, {a[0]: a[1], b[0]: b[1]})


def _matmul(node: NodeView, a: int, b: int) -> str:
    left = "k" if len(node.input(a)) == 1 else "... i k"
    right = "k" if len(node.input(b)) == 1 else "... k j"
    return f"{left}, {right} -> " + " ".join(["..."] + ["i"] * ("i" in left) + ["j"] * ("j" in right))


@axis_rule("DynamicQuantizeLinear", quantizes=True)
def dynamic_quantize(node: NodeView) -> AxisRule:
    """Scale and zero point follow from the range, which always holds zero."""
    sums = tuple(Reduce(ref, Reduction.SUM) for ref in node.input(0) if not node.one(ref))
    return AxisRule(equal=tuple(zip(node.input(0), node.output(), strict=True)), reduces=sums)


@axis_rule("MatMulInteger")
def matmul_integer(node: NodeView) -> AxisRule:
    """MatMul of integers; a zero point for B, or one a column."""
    return _product(node, _matmul(node, 0, 1), (0, 2), (1, 3))


@axis_rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(node: NodeView) -> AxisRule:
    """MatMul of integers, scaled, plus a bias."""
    return _product(node, _matmul(node, 0, 1), (0, 4, 2), (1, 5, 3), 6)


@axis_rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: NodeView) -> AxisRule:
    """MatMul of floats that are quantized on the spot, by their range and zero."""
    rule = equation(node, _matmul(node, 0, 1))
    everything = tuple(Reduce(ref, Reduction.SUM) for ref in node.input(0)[:-1] if not node.one(ref))
    rule += _parameters(node, 1, -1, 2, 3) + broadcast(node.optional_input(4) or (), node.output())
    return rule + AxisRule(reduces=everything)


@axis_rule("QLinearMatMul")
def qlinear_matmul(node: NodeView) -> AxisRule:
    """MatMul of integers with a scale and zero point each; B may have one a column."""
    rule = _product(node, _matmul(node, 0, 3), (0, 2, 1), (3, 5, 4))
    for k in (6, 7):  # one number, or one a row
        if (parameter := node.optional_input(k)) and any(not node.one(ref) for ref in parameter):
            rule += AxisRule(pins=tuple((ref, "an output scale a row") for ref in (*parameter, node.output()[-2])))
    return rule


@axis_rule("QGemm", domain=MICROSOFT)
def qgemm(node: NodeView) -> AxisRule:
    """Gemm of integers; B may have a scale a column."""
    left = "k i" if node.attr("transA", 0) else "i k"
    right = "j k" if node.attr("transB", 0) else "k j"
    return _product(node, f"{left}, {right} -> i j", (0, 2, 1), (3, 5, 4), 6)


@axis_rule("ConvInteger")
def conv_integer(node: NodeView) -> AxisRule:
    """Conv of integers; the weight may have a zero point a filter."""
    return quantized(conv(picked(node, 0, 1)), {0: 2}) + _parameters(node, 1, 0, 3)


@axis_rule("QLinearConv")
@axis_rule("QLinearConv", domain=MICROSOFT)
def qlinear_conv(node: NodeView) -> AxisRule:
    """Conv of integers; the weight may have a scale and zero point a filter."""
    view = channels_first(node, 0) if node.attr("channels_last") else node
    return quantized(conv(picked(view, 0, 3, 8)), {0: 2}, (0, 3)) + _parameters(node, 3, 0, 4, 5)


@axis_rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(node: NodeView) -> AxisRule:
    """Two quantized operands broadcast against each other, as Add and Mul do it."""
    return pointwise(node, 0, 3) + (added(node, 0, 3) if node.op == "QLinearAdd" else AxisRule())


@axis_rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def qlinear_unary(node: NodeView) -> AxisRule:
    """Every axis passes through."""
    return pointwise(node, 0)


@axis_rule("QLinearWhere", domain=MICROSOFT)
def qlinear_where(node: NodeView) -> AxisRule:
    """Condition and two operands broadcast."""
    return pointwise(node, 0, 1, 4)


@axis_rule("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(node: NodeView) -> AxisRule:
    """The axis is pinned, the others pass through."""
    return along_axis(replace(node, version=int(node.attr("opset", 13))))


@axis_rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(node: NodeView) -> AxisRule:
    """Batch and channels pass through; space is pinned."""
    return pool(picked(channels_first(node, 0) if node.attr("channels_last") else node, 0))


@axis_rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: NodeView) -> AxisRule:
    """Operands stand behind their output's scale and zero point, each before its own."""
    return concat(picked(node, *range(2, len(node.inputs), 3)))


@axis_rule("QAttention", domain=MICROSOFT)
def quantized_attention(node: NodeView) -> AxisRule:
    """Attention with one quantized weight for Q, K and V, whose columns may have scales of their own."""
    rule = quantized(fused_qkv(picked(node, 0, 1, 2, 5, 8)), {0: 6, 1: 7})
    return rule + _parameters(node, 1, -1, 4, 7)
