"""Convolutions and pools: `[N, C, *space]`, space pinned, groups a product of channels."""

from __future__ import annotations

from prunegraph.analysis.axes import Expr, Prod, Ref
from prunegraph.analysis.ops import EVERY
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, Contraction, NodeView, Reduce, Reduction, SizeSite


def space(*operands: tuple[Ref, ...]) -> AxisRule:
    """Axes from the third on are positions of an image (or of a kernel), which neighbours share."""
    return AxisRule(pins=tuple((ref, "a spatial axis") for axes in operands for ref in axes[2:]))


@axis_rule("Conv", contracts=True, linear=True, bias=2, parameters=(1, 2))
def conv(node: NodeView) -> AxisRule:
    """`x.C = g·i`, `W = [g·o, i, *kernel]`, `y.C = g·o`."""
    x, w, y = node.input(0), node.input(1), node.output()
    groups = node.attr("group", 1)
    g = node.fresh((groups,) * node.probes, "g")
    o = node.fresh(tuple(n // groups for n in w[0].size), "o")
    equal: list[tuple[Expr, Expr]] = [
        (x[0], y[0]),
        (x[1], Prod((g, w[1]))),
        (w[0], Prod((g, o))),
        (w[0], y[1]),
    ]
    return _finish(node, equal, SizeSite("group", None, g) if groups > 1 else None, summed=w[1], filters=y[1])


@axis_rule("ConvTranspose", contracts=True, linear=True, bias=2, parameters=(1, 2))
def conv_transpose(node: NodeView) -> AxisRule:
    """`x.C = g·i`, `W = [g·i, o, *kernel]`, `y.C = g·o`."""
    x, w, y = node.input(0), node.input(1), node.output()
    groups = node.attr("group", 1)
    g = node.fresh((groups,) * node.probes, "g")
    i = node.fresh(tuple(n // groups for n in w[0].size), "i")
    equal: list[tuple[Expr, Expr]] = [
        (x[0], y[0]),
        (w[0], Prod((g, i))),
        (x[1], w[0]),
        (y[1], Prod((g, w[1]))),
    ]
    return _finish(node, equal, SizeSite("group", None, g) if groups > 1 else None, summed=w[0], filters=y[1])


def _finish(
    node: NodeView, equal: list[tuple[Expr, Expr]], group: SizeSite | None, summed: Ref, filters: Ref
) -> AxisRule:
    """What Conv and ConvTranspose share: bias, space, the sum over the channels of a group, MACs."""
    x, w, y = node.input(0), node.input(1), node.output()
    if bias := node.optional_input(2):
        equal.append((bias[0], filters))
    reduces = () if node.one(summed) else (Reduce(x[1], Reduction.SUM),)
    contraction = Contraction(
        operands=(0, 1),
        batch=(),
        summed=(x[1], summed) if reduces else (),
        left=(x[0],),
        right=(filters,),
        macs=(*y, w[1], *w[2:]) if node.op != "ConvTranspose" else (*x, w[1], *w[2:]),
        conv=True,
    )
    sizes = (group,) if group else ()
    return AxisRule(tuple(equal), reduces=reduces, rewrites=sizes, contractions=(contraction,)) + space(x, w, y)


_GLOBAL = {
    "GlobalAveragePool": Reduction.MEAN,
    "GlobalLpPool": Reduction.SUM,
    "GlobalMaxPool": Reduction.MAX,
}


@axis_rule("GlobalAveragePool", averages=True, pools=True)
@axis_rule("GlobalLpPool", "GlobalMaxPool", pools=True)
def global_pool(node: NodeView) -> AxisRule:
    """A reduction over all axes but batch and channels."""
    x, y = node.input(0), node.output()
    reduces = tuple(Reduce(ref, _GLOBAL[node.op]) for ref in x[2:] if not node.one(ref))
    return AxisRule(equal=((x[0], y[0]), (x[1], y[1])), reduces=reduces)


@axis_rule("AveragePool", "LpPool", "MaxPool")
def pool(node: NodeView) -> AxisRule:
    """Batch and channels pass through; space is pinned.  Where MaxPool tells positions, they count channels too."""
    x = node.input(0)
    rule = space(x)
    if node.op == "MaxPool" and len(node.outputs) > 1 and node.outputs[1] is not None:
        rule += AxisRule(pins=tuple((ref, "positions are counted through it") for ref in x[:2]))
    for y in node.outputs:
        if y is not None:
            rule += AxisRule(equal=((x[0], y[0]), (x[1], y[1]))) + space(y)
    return rule


@axis_rule("Resize", "Upsample", fixed=EVERY, lengths_from=(1, 2, 3))
def resize(node: NodeView) -> AxisRule:
    """Axes whose length stays pass through (`sizes` states it); the others are positions, pinned."""
    x, y = node.input(0), node.output()
    kept = [k for k in range(len(x)) if x[k].size == y[k].size and k < 2]
    moved = [k for k in range(len(x)) if k not in kept]
    sizes_input = 3 if node.op == "Resize" and node.version >= 11 else None
    sizes = (
        ()
        if sizes_input is None or node.optional_input(sizes_input) is None
        else tuple(SizeSite(3, k, y[k]) for k in kept)
    )
    pins = tuple((axes[k], "resized") for k in moved for axes in (x, y))
    return AxisRule(equal=tuple((x[k], y[k]) for k in kept), pins=pins, rewrites=sizes if not node.attr("axes") else ())


@axis_rule("DepthToSpace", moves=True)
def depth_to_space(node: NodeView) -> AxisRule:
    """`(b·b·c)` or, with mode CRD, `(c·b·b)` channels become `c` channels of an image b times as large."""
    x, y = node.input(0), node.output()
    b = (int(node.attr("blocksize")),) * node.probes
    rows, columns = node.fresh(b, "b", "a spatial axis"), node.fresh(b, "b", "a spatial axis")
    product: tuple[Expr, ...] = (y[1], rows, columns) if node.attr("mode", "DCR") == "CRD" else (rows, columns, y[1])
    return AxisRule(equal=((x[0], y[0]), (x[1], Prod(product)))) + space(x, y)


@axis_rule("SpaceToDepth", moves=True)
def space_to_depth(node: NodeView) -> AxisRule:
    """`c` channels become `b·b·c`."""
    x, y = node.input(0), node.output()
    b = (int(node.attr("blocksize")),) * node.probes
    rows, columns = node.fresh(b, "b", "a spatial axis"), node.fresh(b, "b", "a spatial axis")
    return AxisRule(equal=((x[0], y[0]), (y[1], Prod((rows, columns, x[1]))))) + space(x, y)
