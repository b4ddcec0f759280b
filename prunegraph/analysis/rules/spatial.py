"""Ops about positions in an image or a signal: batch and channels pass through, positions stay whole."""

from __future__ import annotations

from prunegraph.analysis.axes import Prod
from prunegraph.analysis.ops import EVERY
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView, SizeSite
from prunegraph.analysis.rules.conv import conv, space
from prunegraph.analysis.rules.elementwise import MICROSOFT
from prunegraph.analysis.rules.select import pinned
from prunegraph.analysis.rules.views import picked


@axis_rule("GridSample")
@axis_rule("GridSample", domain=MICROSOFT)
def grid_sample(node: NodeView) -> AxisRule:
    """`[N, C, …]` read at `[N, …, 2]`."""
    x, grid, y = node.input(0), node.input(1), node.output()
    rule = AxisRule(equal=((x[0], y[0]), (x[1], y[1]), (grid[0], y[0]))) + space(x, y)
    return rule + pinned(grid[1:], why="a grid of positions")


@axis_rule("RoiAlign", "MaxRoiPool")
def regions(node: NodeView) -> AxisRule:
    """Channels pass through; the first axis of the output counts the regions."""
    x, boxes, y = node.input(0), node.input(1), node.output()
    rule = AxisRule(equal=((x[1], y[1]), (boxes[0], y[0]))) + space(x, y)
    if which := node.optional_input(2):
        rule += AxisRule(equal=((which[0], y[0]),))
    return rule + pinned((x[0],), boxes[1:], why="regions name it by position")


@axis_rule("Col2Im", lengths_from=(1, 2))
def columns_to_image(node: NodeView) -> AxisRule:
    """`[N, C·block, positions]` summed up to `[N, C, …]`."""
    x, y = node.input(0), node.output()
    block = node.fresh(tuple(n // m for n, m in zip(x[1].size, y[1].size, strict=True)), "block", "a spatial axis")
    return AxisRule(equal=((x[0], y[0]), (x[1], Prod((y[1], block))))) + space(x, y)


@axis_rule("DeformConv", contracts=True, bias=3)
def deformable_conv(node: NodeView) -> AxisRule:
    """Conv at shifted positions; the shifts may differ from block to block of channels, which pins those."""
    shifts = [axes for axes in (node.optional_input(2), node.optional_input(4)) if axes]
    rule = conv(picked(node, 0, 1, 3)) + AxisRule(equal=tuple((axes[0], node.input(0)[0]) for axes in shifts))
    if node.attr("offset_group", 1) > 1:
        rule += pinned(node.input(0)[1:2], why="blocks of channels are shifted apart")
    return rule + pinned(*(axes[1:] for axes in shifts), why="shifts of positions")


@axis_rule("CausalConvWithState")
def causal_conv(node: NodeView) -> AxisRule:
    """One filter a channel along time `[N, C, time]`, with the last positions carried from call to call."""
    x, w = node.input(0), node.input(1)
    rule = AxisRule(equal=((w[0], x[1]),)) + space(x, w)
    if bias := node.optional_input(2):
        rule += AxisRule(equal=((bias[0], x[1]),))
    for other in (node.optional_input(3), *node.outputs):
        if other:
            rule += AxisRule(equal=((other[0], x[0]), (other[1], x[1]))) + space(other)
    return rule


@axis_rule("AffineGrid", lengths_from=(1,))
def affine_grid(node: NodeView) -> AxisRule:
    """The batch passes through, and the size states it."""
    theta, y = node.input(0), node.output()
    rule = AxisRule(equal=((theta[0], y[0]),), rewrites=(SizeSite(1, 0, y[0]),))
    return rule + pinned(theta[1:], y[1:], why="a grid of positions")


@axis_rule("CenterCropPad", lengths_from=(1,))
def center_crop_pad(node: NodeView) -> AxisRule:
    """The axes whose lengths are given stay whole, the others pass through."""
    x, y = node.input(0), node.output()
    axes = {k % len(x) for k in node.ints("axes", None) or range(len(x))}
    rule = AxisRule(equal=tuple((a, b) for k, (a, b) in enumerate(zip(x, y, strict=True)) if k not in axes))
    return rule + pinned(*((x[k], y[k]) for k in axes), why="cropped or padded")


@axis_rule("DFT", fixed=EVERY, lengths_from=(1, 2))
def fourier(node: NodeView) -> AxisRule:
    """The transformed axis and the one of real and imaginary parts stay whole, the others pass through."""
    x, y = node.input(0), node.output()
    stated = node.static(2) if node.version >= 20 else None
    axis = int(stated.reshape(-1)[0]) if stated is not None else node.attr("axis", 1 if node.version < 20 else -2)
    gone = {axis % len(x), len(x) - 1}
    if node.version >= 20 and node.optional_input(2) is not None and stated is None:
        gone = set(range(len(x)))
    rule = AxisRule(equal=tuple((x[k], y[k]) for k in range(len(x)) if k not in gone))
    return rule + pinned(*((x[k], y[k]) for k in gone), why="DFT runs along it")


@axis_rule("STFT", fixed=EVERY, lengths_from=(1, 3))
def windowed_fourier(node: NodeView) -> AxisRule:
    """The batch passes through."""
    x, y = node.input(0), node.output()
    return AxisRule(equal=((x[0], y[0]),)) + pinned(x[1:], y[1:], node.optional_input(2), why="STFT runs along it")
