"""Integers that are positions along an axis: what a router's TopK gives, and where it is looked up.

A position means the same slot wherever it is used, so an axis that is ranked and the tables that are looked up by the
outcome are one choice: the experts of a mixture.  That holds only if nobody does anything else with the integers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from prunegraph.analysis.axes import Fresh
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.ops import FIRST, Lookup, traits_of


def rankings(graph: ir.Graph, facts: Facts) -> Mapping[int, Fresh]:
    """By position of a node, the axis that it ranks or looks up by, one object for all that speak of the same axis."""
    number = {node: k for k, node in enumerate(graph)}
    ranked_axes: dict[int, Fresh] = {}
    for node, users in _looked_up(graph, facts).items():
        axis = Fresh((_ranked_size(node, facts),) * facts.probes, "expert")
        ranked_axes |= {number[each]: axis for each in (node, *users, *_softmaxes(node, facts))}
    return ranked_axes


def _looked_up(graph: ir.Graph, facts: Facts) -> dict[ir.Node, list[ir.Node]]:
    """Rankings whose positions are used to look slots up, or not at all; and by whom."""
    holds: dict[ir.Value, ir.Node] = {}
    users: dict[ir.Node, list[ir.Node]] = defaultdict(list)
    spoiled = set()
    for node in graph:
        for index, value in enumerate(node.inputs):
            ranking = holds.get(value) if value is not None else None
            traits = traits_of(node)
            if ranking is None or traits.states_lengths:
                continue
            lookup = traits.looked_up_by.get(index)
            if index == 0 and traits.carries == FIRST:
                holds |= dict.fromkeys(node.outputs, ranking)
            elif lookup and lookup.ranked and _looked_up_size(node, lookup, facts) == _ranked_size(ranking, facts):
                users[ranking].append(node)
            else:
                spoiled.add(ranking)
        # The smallest are other slots once a removed one no longer counts as smallest of all.
        if node.op_type == "TopK" and node.attributes.get_int("largest", 1) == 1 and _ranked_size(node, facts):
            holds[node.outputs[1]] = node
    bodies = [a.as_graph() for node in graph for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    inside = (value for body in bodies for node in body.all_nodes() for value in node.inputs)
    elsewhere = [*graph.outputs, *inside, *(value for body in bodies for value in body.outputs)]
    spoiled |= {holds[value] for value in elsewhere if value in holds}
    return {node: users[node] for node in dict.fromkeys(holds.values()) if node not in spoiled}


def _softmaxes(node: ir.Node, facts: Facts) -> Iterator[ir.Node]:
    """The Softmax that a ranking is taken of, if it is of one."""
    value = node.inputs[0]
    while value is not None and (maker := value.producer()) is not None and traits_of(maker).keeps_order:
        if traits_of(maker).softmax and _axis(maker, facts) == _axis(node, facts):
            yield maker
        value = maker.inputs[0]


def _axis(node: ir.Node, facts: Facts) -> int:
    """The axis that a node works along, counted from the front."""
    value = node.inputs[0]
    rank = len(facts.shapes.get(value.name or "", ())) if value is not None else 0
    return node.attributes.get_int("axis", -1) % max(rank, 1)


def _ranked_size(node: ir.Node, facts: Facts) -> int:
    """How long the ranked axis is, 0 if that varies."""
    return _length(node.inputs[0], node.attributes.get_int("axis", -1), facts)


def _looked_up_size(node: ir.Node, lookup: Lookup, facts: Facts) -> int:
    """How long the axis is along which a node looks up; 0 if that varies, or if it looks up along several."""
    table, axis = node.inputs[lookup.table], lookup.axis(node)
    several = lookup.tuples and (axis != 0 or _length(node.inputs[lookup.by], -1, facts) != 1)
    return 0 if several else _length(table, axis, facts)


def _length(value: ir.Value | None, axis: int, facts: Facts) -> int:
    shape = facts.shapes.get(value.name or "") if value is not None else None
    size = shape[axis] if shape else ()
    return size[0] if len(set(size)) == 1 else 0
