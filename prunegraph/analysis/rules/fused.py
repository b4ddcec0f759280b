"""What ONNX Runtime fuses (com.microsoft): sums into norms, biases into activations, activations into contractions."""

from __future__ import annotations

from dataclasses import replace

from prunegraph.analysis.axes import Expr, Prod
from prunegraph.analysis.ops import Lookup, Norm
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, Contraction, NodeView, Reduce, Reduction, SizeSite
from prunegraph.analysis.rules.contract import equation, gemm
from prunegraph.analysis.rules.conv import conv, pool, space
from prunegraph.analysis.rules.elementwise import MICROSOFT, broadcast, nary, pointwise, unary
from prunegraph.analysis.rules.norm import along_axis, layer_normalization
from prunegraph.analysis.rules.views import channels_first

_SKIP = Norm(centred=False, scale=2, sum_output=3, epsilon=1e-12)

axis_rule("FusedGemm", domain=MICROSOFT, contracts=True, bias=2)(gemm)
axis_rule("BiasGelu", "FastGelu", domain=MICROSOFT, pointwise=True, keeps_zero=True)(nary)
axis_rule("Gelu", "QuickGelu", domain=MICROSOFT, pointwise=True, keeps_zero=True)(unary)
axis_rule("LayerNormalization", domain=MICROSOFT, norm=Norm(centred=True), parameters=(1, 2))(layer_normalization)
axis_rule("SimplifiedLayerNormalization", domain=MICROSOFT, norm=Norm(centred=False), parameters=(1,))(
    layer_normalization
)


def added(node: NodeView, *inputs: int) -> AxisRule:
    """These inputs are added: activations join along the axes that they have."""
    operands = [node.optional_input(k) for k in inputs if k < len(node.weights) and not node.weights[k]]
    return AxisRule(joins=tuple(ref for axes in operands for ref in axes or () if not node.one(ref)))


@axis_rule("SkipLayerNormalization", domain=MICROSOFT, norm=replace(_SKIP, centred=True), adds=True)
@axis_rule("SkipSimplifiedLayerNormalization", domain=MICROSOFT, norm=_SKIP, adds=True)
def skip_layer_normalization(node: NodeView) -> AxisRule:
    """The norm of `x + skip (+ bias)`, and that sum as the fourth output; all parameters belong to the last axis."""
    x = node.input(0)
    rule = added(node, 0, 1) + AxisRule(reduces=(Reduce(x[-1], Reduction.MEAN),))
    for source in node.inputs[1:]:
        rule += broadcast(source or (), x)
    for y in node.outputs:
        rule += broadcast(y or (), x)
    return rule


@axis_rule(
    "EmbedLayerNormalization",
    domain=MICROSOFT,
    norm=Norm(centred=True, scale=5, sum_output=2, epsilon=1e-12),
    looks_up=(Lookup(by=0, table=2), Lookup(by=8, table=3), Lookup(by=1, table=4)),
)
def embed_layer_normalization(node: NodeView) -> AxisRule:
    """The norm of word, position and segment embeddings added up; the columns of the tables are the last axis."""
    ids, y = node.input(0), node.output()
    rule = AxisRule(equal=tuple(zip(ids, y[:2], strict=True)))
    for table in (node.optional_input(2), node.optional_input(3), node.optional_input(4)):
        if table:
            rule += AxisRule(equal=((table[1], y[2]),), pins=((table[0], "looked up by position"),))
    for other in (node.optional_input(1), node.optional_input(7), node.optional_input(8)):
        rule += broadcast(other or (), y[:2])
    for parameter in (*node.inputs[5:7], *node.outputs[2:3]):
        rule += broadcast(parameter or (), y)
    if len(node.outputs) > 1 and node.outputs[1]:
        rule += AxisRule(equal=((node.outputs[1][0], y[0]),) if node.outputs[1][0].size == y[0].size else ())
    return rule + AxisRule(reduces=(Reduce(node.input(2)[1], Reduction.MEAN, inside=True),))


@axis_rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT, contracts=True, linear=True)
def fused_matmul(node: NodeView) -> AxisRule:
    """MatMul with either operand transposed, times a number; the first axis may stand before the batch."""

    def labels(operand: int, side: str, row: str, column: str) -> str:
        if len(node.input(operand)) == 1:
            return "k"
        a, b = (column, row) if node.attr(f"trans{side}") else (row, column)
        return f"{a} ... {b}" if node.attr(f"transBatch{side}") else f"... {a} {b}"

    left, right = labels(0, "A", "i", "k"), labels(1, "B", "k", "j")
    out = " ".join(["..."] + ["i"] * ("i" in left) + ["j"] * ("j" in right))
    return equation(node, f"{left}, {right} -> {out}")


@axis_rule("GemmFastGelu", domain=MICROSOFT, contracts=True, bias=2)
def gemm_fast_gelu(node: NodeView) -> AxisRule:
    """An activation function of `X·W + bias`."""
    return equation(node, "... i k, k j -> ... i j") + broadcast(node.optional_input(2) or (), node.output())


@axis_rule("FusedConv", domain=MICROSOFT, contracts=True, bias=2)
def fused_conv(node: NodeView) -> AxisRule:
    """An activation function of `Conv(X) + Z`."""
    summand = node.optional_input(3)
    return conv(node) + (broadcast(summand, node.output()) + added(node, 3) if summand else AxisRule())


@axis_rule("NhwcConv", "NhwcFusedConv", domain=MICROSOFT, contracts=True, bias=2)
def channels_last_conv(node: NodeView) -> AxisRule:
    """FusedConv with channels last, in the weight too."""
    return fused_conv(channels_first(node, 0, 1, 3))


@axis_rule("NhwcMaxPool", domain=MICROSOFT)
def channels_last_pool(node: NodeView) -> AxisRule:
    """MaxPool with channels last."""
    return pool(channels_first(node, 0))


@axis_rule("BiasAdd", domain=MICROSOFT, adds=True)
def bias_add(node: NodeView) -> AxisRule:
    """`x + bias + skip`."""
    return pointwise(node) + added(node, 0, 2)


@axis_rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(node: NodeView) -> AxisRule:
    """The first half of `x + bias` times an activation function of the second."""
    x, bias, y = node.input(0), node.input(1), node.output()
    two = node.fresh((2,) * node.probes, "2", "value and gate")
    equal: tuple[tuple[Expr, Expr], ...] = ((x[-1], Prod((two, y[-1]))), (bias[0], x[-1]))
    return AxisRule(equal=(*equal, *zip(x[:-1], y[:-1], strict=True)))


@axis_rule("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(node: NodeView) -> AxisRule:
    """Softmax of `x + bias`; with outer broadcast the bias does not line up from the right."""
    rule = along_axis(node)
    if node.attr("is_inner_broadcast", 1):
        return rule + broadcast(node.input(1), node.output())
    return rule + AxisRule(pins=tuple((ref, "BiasSoftmax broadcasts it") for ref in (*node.input(0), *node.input(1))))


@axis_rule("GroupNorm", "SkipGroupNorm", domain=MICROSOFT)
def group_norm(node: NodeView) -> AxisRule:
    """Statistics within each group of channels, which stand last unless told otherwise: whole groups may go."""
    last = node.attr("channels_last", 1)
    x = node.input(0)
    channels = x[-1] if last else x[1]
    groups = int(node.attr("groups"))
    g = node.fresh((groups,) * node.probes, "g")
    i = node.fresh(tuple(n // groups for n in channels.size), "i", "statistics are taken within a group")
    rule = AxisRule(equal=((channels, Prod((g, i))),), rewrites=(SizeSite("groups", None, g),)) + added(node, 0, 3)
    rule += space((x[0], channels, *(x[1:-1] if last else x[2:])))
    for parameter in (node.optional_input(1), node.optional_input(2), node.optional_input(4)):
        rule += AxisRule(equal=((parameter[0], channels),)) if parameter else AxisRule()
    if (skip := node.optional_input(3)) and len(skip) == 2:
        rule += AxisRule(equal=((skip[0], x[0]), (skip[1], channels)))
    elif skip:
        rule += broadcast(skip, x)
    for y in node.outputs:
        rule += broadcast(y or (), x)
    return rule


@axis_rule("MoE", domain=MICROSOFT)
def mixture(node: NodeView) -> AxisRule:
    """Experts `[experts, inner (·2), hidden]` and back `[experts, hidden, inner]`, the best few for every row."""
    x, router, up, down, y = node.input(0), node.input(1), node.input(2), node.input(4), node.output()
    f = down[2]
    two = node.fresh((2,) * node.probes, "2", "value and gate")
    fused = int(node.attr("swiglu_fusion", 0))
    inner: Expr = Prod((f, two)) if fused == 1 else Prod((two, f)) if fused == 2 else f
    equal: list[tuple[Expr, Expr]] = [(up[1], inner), (up[2], x[-1]), (down[1], y[-1]), (router[0], Prod(x[:-1]))]
    equal += zip(x[:-1], y[:-1], strict=True)
    for weight, bias, width in ((up, 3, up[1]), (down, 5, down[1])):
        if parameter := node.optional_input(bias):
            equal += [(parameter[0], weight[0]), (parameter[1], width)]
    if third := node.optional_input(6):
        equal += [(third[0], up[0]), (third[1], f), (third[2], x[-1])]
        equal += [(bias_of_third[0], up[0]), (bias_of_third[1], f)] if (bias_of_third := node.optional_input(7)) else []
    equal += [(router[1], up[0]), (router[1], down[0])]
    return AxisRule(
        equal=tuple(equal),
        pins=((router[1], "the best experts are picked from it"),),
        reduces=(Reduce(x[-1], Reduction.SUM), Reduce(f, Reduction.SUM, inside=True)),
        contractions=(
            Contraction((0, 2), (up[0],), (x[-1], up[2]), x[:-1], (f,), (*x[:-1], *up[1:])),
            Contraction((0, 4), (down[0],), (f,), x[:-1], (y[-1],), (*x[:-1], *down[1:])),
        ),
    )
