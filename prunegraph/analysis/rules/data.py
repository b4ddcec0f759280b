"""Ops whose output depends on what the data says, and caches that are written by position."""

from __future__ import annotations

from prunegraph.analysis.bodies import CHOOSE, DOMAIN
from prunegraph.analysis.ops import FIRST, declare
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView
from prunegraph.analysis.rules.elementwise import MICROSOFT, first_operand, nary, unary
from prunegraph.analysis.rules.select import TUPLES, gather_nd, pinned

axis_rule("BitCast")(unary)
axis_rule("SwiGLU")(nary)
axis_rule("Trilu", domain=MICROSOFT)(first_operand)
axis_rule("GatherND", domain=MICROSOFT, carries=FIRST, moves=True, looks_up=(TUPLES,))(gather_nd)
declare("SequenceConstruct", "SequenceErase", "SequenceInsert", sequences=True)
declare("SequenceEmpty", "SplitToSequence", sequences=True, lengths_by_data=True)
declare("ConcatFromSequence", "SequenceAt", "SequenceLength", "SequenceMap", sequences=True, lengths_by_data=True)
declare("RandomNormal", "RandomUniform", random=True)


@axis_rule(CHOOSE, domain=DOMAIN, carries=(1, 2), mixes=(1, 2), lengths_by_data=True)
def choose(node: NodeView) -> AxisRule:
    """What two branches hand out is the same, axis by axis, where it is equally long."""
    condition, then, other, y = node.input(0), node.input(1), node.input(2), node.output()
    rule = pinned(condition, why="a condition")
    if not len(then) == len(other) == len(y):
        return rule + pinned((*then, *other, *y), why="the branches differ in rank")
    for a, b, c in zip(then, other, y, strict=True):
        if a.size == b.size == c.size:
            rule += AxisRule(equal=((a, b), (a, c)))
        else:
            rule += pinned((a, b, c), why="the branches differ in length")
    return rule


@axis_rule("Compress", carries=FIRST, lengths_by_data=True)
def compress(node: NodeView) -> AxisRule:
    """The axis that slots are picked from is pinned, the others pass through."""
    x, chosen, y = node.input(0), node.input(1), node.output()
    if "axis" not in node.attributes:
        return pinned(x, chosen, y, why="slots are picked by the data")
    axis = node.attr("axis") % len(x)
    rule = AxisRule(equal=tuple((x[k], y[k]) for k in range(len(x)) if k != axis))
    return rule + pinned((x[axis], y[axis]), chosen, why="slots are picked by the data")


@axis_rule("NonZero", "Unique", lengths_by_data=True, jumps=True)
def positions(node: NodeView) -> AxisRule:
    """NonZero and Unique compare all slots of their input, so that none may go."""
    return pinned(*node.inputs, *node.outputs, why=f"{node.op} compares all slots")


@axis_rule("Det")
@axis_rule("Inverse", domain=MICROSOFT)
def matrices(node: NodeView) -> AxisRule:
    """A matrix stays whole, a stack of them passes through."""
    x, y = node.input(0), node.output()
    rule = AxisRule(equal=tuple(zip(x[:-2], y[: len(x) - 2], strict=True)))
    return rule + pinned(x[-2:], y[len(x) - 2 :], why=f"{node.op} of a whole matrix")


@axis_rule("Multinomial", random=True, jumps=True)
def multinomial(node: NodeView) -> AxisRule:
    """Classes and samples stay whole, the batch passes through."""
    x, y = node.input(0), node.output()
    return AxisRule(equal=((x[0], y[0]),)) + pinned(x[1:], y[1:], why="Multinomial draws from it")


@axis_rule("TensorScatter")
def tensor_scatter(node: NodeView) -> AxisRule:
    """A cache written by position along one axis; the others pass through."""
    past, update, y = node.input(0), node.input(1), node.output()
    axis = node.attr("axis", -2) % len(past)
    rule = AxisRule(equal=tuple((past[k], other[k]) for k in range(len(past)) if k != axis for other in (update, y)))
    if where := node.optional_input(2):
        rule += AxisRule(equal=((where[0], past[0]),))
    return rule + pinned((past[axis], update[axis], y[axis]), why="written by position")
