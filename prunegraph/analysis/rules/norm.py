"""Normalisations: axes pass through, statistics are means over some of them."""

from __future__ import annotations

from prunegraph.analysis.axes import Prod
from prunegraph.analysis.ops import Norm
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView, Reduce, Reduction, SizeSite
from prunegraph.analysis.rules.conv import space
from prunegraph.analysis.rules.elementwise import broadcast, pointwise


@axis_rule("BatchNormalization", norm=Norm(centred=True, by_channel=True), parameters=(1, 2), fixed=(3, 4))
def batch_normalization(node: NodeView) -> AxisRule:
    """Scale, bias, mean and variance belong to the channels; statistics are constants, unless it is training."""
    x, y = node.input(0), node.outputs[0]
    vectors = [value for value in (*node.inputs[1:], *node.outputs[1:]) if value is not None]
    statistics = [ref for ref in (x[0], *x[2:]) if not node.one(ref)] if node.attr("training_mode", 0) else []
    means = tuple(Reduce(ref, Reduction.MEAN) for ref in statistics)
    return broadcast(x, y or ()) + AxisRule(equal=tuple((vector[0], x[1]) for vector in vectors), reduces=means)


@axis_rule("LayerNormalization", norm=Norm(centred=True), parameters=(1, 2))
@axis_rule("RMSNormalization", "SimplifiedLayerNormalization", norm=Norm(centred=False), parameters=(1,))
def layer_normalization(node: NodeView) -> AxisRule:
    """Statistics over every axis from `axis` on; scale and bias broadcast to the input."""
    x = node.input(0)
    axis = node.attr("axis", -1) % len(x)
    rule = AxisRule(reduces=tuple(Reduce(ref, Reduction.MEAN) for ref in x[axis:] if not node.one(ref)))
    for k, parameter in enumerate(node.inputs[1:], 1):
        if parameter is not None:
            rule += broadcast(node.input(k), x)
    for y in node.outputs:
        if y is not None:
            rule += AxisRule(equal=tuple((a, b) for a, b in zip(x, y, strict=True) if a.size == b.size))
    return rule


@axis_rule("InstanceNormalization", norm=Norm(centred=True, by_channel=True), parameters=(1, 2))
def instance_normalization(node: NodeView) -> AxisRule:
    """Scale and bias belong to the channels; statistics over what comes after, an image or the channels of a group."""
    x = node.input(0)
    means = tuple(Reduce(ref, Reduction.MEAN) for ref in x[2:] if not node.one(ref))
    return pointwise(node, 0) + AxisRule(equal=tuple((node.input(k)[0], x[1]) for k in (1, 2)), reduces=means)


@axis_rule("GroupNormalization", parameters=(1, 2))
def group_normalization(node: NodeView) -> AxisRule:
    """Statistics within each group: whole groups may go."""
    x = node.input(0)
    groups = int(node.attr("num_groups"))
    g = node.fresh((groups,) * node.probes, "g")
    i = node.fresh(tuple(n // groups for n in x[1].size), "i", "statistics are taken within a group")
    per_channel = node.input(1)[0].size == x[1].size
    parameters = tuple((node.input(k)[0], x[1] if per_channel else g) for k in (1, 2))
    site = SizeSite("num_groups", None, g)
    return pointwise(node, 0) + space(x) + AxisRule(equal=((x[1], Prod((g, i))), *parameters), rewrites=(site,))


@axis_rule("LRN")
def local_response(node: NodeView) -> AxisRule:
    """Neighbouring channels share a sum."""
    return pointwise(node, 0) + AxisRule(pins=((node.input(0)[1], "LRN sums neighbouring channels"),))


@axis_rule("Softmax", softmax=True, keeps_order=True, lifts_zero=True)
@axis_rule("LogSoftmax", "LpNormalization", "MeanVarianceNormalization")
@axis_rule("Hardmax", jumps=True)
def along_axis(node: NodeView) -> AxisRule:
    """Every axis passes through; the one worked along is pinned, since all its slots see each other."""
    x = node.input(0)
    if node.op == "MeanVarianceNormalization":
        axes = [k % len(x) for k in node.attr("axes", (0, 2, 3))]
    elif node.op != "LpNormalization" and node.version < 13:
        axes = list(range(node.attr("axis", 1) % len(x), len(x)))
    else:
        axes = [node.attr("axis", -1) % len(x)]
    if node.op == "LpNormalization":  # a norm is a sum: a removed slot and a zero one are the same
        return pointwise(node, 0) + AxisRule(reduces=tuple(Reduce(x[k], Reduction.SUM) for k in axes))
    if node.positions is not None and len(axes) == 1:
        return pointwise(node, 0) + AxisRule(reduces=tuple(Reduce(x[k], Reduction.RANK) for k in axes))
    return pointwise(node, 0) + AxisRule(pins=tuple((x[k], f"{node.op} runs along it") for k in axes))
