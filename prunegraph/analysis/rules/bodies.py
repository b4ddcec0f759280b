"""What the body of a Loop or Scan is given and makes; see `analysis.bodies`.

A state is one thing, with the same axes, before the first trip, in every trip and after the last one.  What is scanned
has one axis more than a slice of it.
"""

from __future__ import annotations

from prunegraph.analysis.axes import Axes
from prunegraph.analysis.bodies import CARRIED, DOMAIN, GIVEN, OP, REPEAT, SCANNED, TRIP, WHILE
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, NodeView
from prunegraph.analysis.rules.select import pinned

_ALONG = "one slice a trip"


def _one(*states: Axes) -> AxisRule:
    """A state, wherever it is looked at; an axis that grows from trip to trip stays whole."""
    if len({len(axes) for axes in states}) > 1:
        return pinned(*states, why="its rank changes from trip to trip")
    rule = AxisRule()
    for first, *others in zip(*states, strict=True):
        if all(ref.size == first.size for ref in others):
            rule += AxisRule(equal=tuple((first, ref) for ref in (first, *others)))
        else:
            rule += pinned((first, *others), why="its length changes from trip to trip")
    return rule


def _slices(whole: Axes, axis: int, part: Axes) -> AxisRule:
    """What is scanned, and a slice of it."""
    axis %= len(whole)
    return pinned((whole[axis],), why=_ALONG) + _one((*whole[:axis], *whole[axis + 1 :]), part)


@axis_rule(CARRIED, domain=DOMAIN, varies=True)
def carried(node: NodeView) -> AxisRule:
    """A state in a trip has the axes that it had before the first one."""
    return _one(node.input(0), node.output())


@axis_rule(SCANNED, domain=DOMAIN, varies=True)
def scanned(node: NodeView) -> AxisRule:
    """A slice has all axes of what is scanned but one, which is pinned."""
    return _slices(node.input(0), node.attr("axis", 0), node.output())


@axis_rule(TRIP, domain=DOMAIN, varies=True)
def trip(node: NodeView) -> AxisRule:
    """The number of a trip, or its condition, has no axes to speak of."""
    return pinned(node.output(), why="a count of trips")


@axis_rule(REPEAT, domain=DOMAIN, varies=True, lengths_by_data=True, endless=True)
@axis_rule(WHILE, domain=DOMAIN, varies=True, lengths_by_data=True, endless=True, jumps=True)
def repeat(node: NodeView) -> AxisRule:
    """States keep their axes from the first trip to the last; slices that a body makes are stacked."""
    given = node.attr(GIVEN)
    made = range(given, len(node.inputs))
    if node.attr(OP) == "Loop":
        rule = pinned(node.optional_input(0), node.optional_input(1), node.input(given), why="a count of trips")
        states, stacked = given - 2, [0] * (len(made) - given + 1)
        rule += _states(node, range(2, given), made[1:])
        first_stack = given + 1 + states
    else:
        scans = node.attr("num_scan_inputs")
        states = given - scans
        rule = _states(node, range(states), made)
        for k in range(states, given):
            rule += _one(node.input(k))
        stacked = list(node.attr("scan_output_axes") or [0] * (len(made) - states))
        first_stack = given + states
    for k, axis in enumerate(stacked):
        rule += _slices(node.output(states + k), axis, node.input(first_stack + k))
    return rule


def _states(node: NodeView, before: range, after: range) -> AxisRule:
    rule = AxisRule()
    for k, (first, last) in enumerate(zip(before, after, strict=False)):
        rule += _one(node.input(first), node.input(last), node.output(k))
    if len(after) < len(before):
        raise CannotAnalyze("its body hands on fewer states than it is given")
    return rule
