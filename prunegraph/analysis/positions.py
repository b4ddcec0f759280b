"""Integers that are positions along an axis: what a router's TopK gives, and where it is looked up.

A position means the same slot wherever it is used, so an axis that is ranked and the tables that are looked up by the
outcome are one choice: the experts of a mixture.  That holds only if nobody does anything else with the integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from prunegraph.analysis.axes import Fresh
from prunegraph.analysis.facts import Facts

_CARRY = frozenset(
    "Cast Concat Expand Flatten Gather Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split()
)
"""Ops that give on the integers of their first input, in whatever arrangement."""

_LOOKS_UP = {"Gather": 1, "GatherND": 1}
"""Ops that look slots up by position, and the input that holds the positions."""

_RANKED = frozenset(("Softmax", "Cast"))
"""Ops between the logits of a router and its TopK: they keep the order along the axis."""


def rankings(nodes: Sequence[ir.Node], facts: Facts) -> Mapping[int, Fresh]:
    """By node, the axis that it ranks or looks up by position, one object for all that speak of the same axis."""
    holds: dict[str, int] = {}
    users: dict[int, list[int]] = {}
    spoiled: set[int] = set()
    for k, node in enumerate(nodes):
        for index, value in enumerate(node.inputs):
            ranking = holds.get(value.name or "") if value is not None else None
            if ranking is None or node.op_type == "Shape":
                continue
            size = _ranked_size(nodes[ranking], facts)
            if index == 0 and node.op_type in _CARRY:
                holds |= {output.name or "": ranking for output in node.outputs}
            elif size and _LOOKS_UP.get(node.op_type) == index and _looked_up_size(node, facts) == size:
                users[ranking].append(k)
            else:
                spoiled.add(ranking)
        if node.op_type == "TopK" and _ranked_size(node, facts):
            users[k] = []
            holds[node.outputs[1].name or ""] = k
    outputs = {value.name for node in nodes[:1] if node.graph for value in node.graph.outputs}
    spoiled |= {ranking for name, ranking in holds.items() if name in outputs}
    return _shared(nodes, facts, {k: places for k, places in users.items() if places and k not in spoiled})


def _shared(nodes: Sequence[ir.Node], facts: Facts, users: Mapping[int, Sequence[int]]) -> dict[int, Fresh]:
    number = {id(node): k for k, node in enumerate(nodes)}
    found: dict[int, Fresh] = {}
    for k, places in users.items():
        size = _ranked_size(nodes[k], facts)
        axis = Fresh((size,) * facts.probes, "expert")
        found |= dict.fromkeys((k, *places, *(number[id(node)] for node in _before(nodes[k]))), axis)
    return found


def _before(node: ir.Node) -> Iterator[ir.Node]:
    """The Softmax that a ranking is taken of, if it is of one."""
    axis = node.attributes.get_int("axis", -1)
    value = node.inputs[0]
    while value is not None and (maker := value.producer()) is not None and maker.op_type in _RANKED:
        if maker.op_type == "Softmax" and maker.attributes.get_int("axis", -1) == axis:
            yield maker
        value = maker.inputs[0]


def _ranked_size(node: ir.Node, facts: Facts) -> int:
    """How long the ranked axis is, 0 if that varies."""
    return _length(node.inputs[0], node.attributes.get_int("axis", -1), facts)


def _looked_up_size(node: ir.Node, facts: Facts) -> int:
    if node.op_type == "Gather":
        return _length(node.inputs[0], node.attributes.get_int("axis", 0), facts)
    whole = node.attributes.get_int("batch_dims", 0) == 0 and _length(node.inputs[1], -1, facts) == 1
    return _length(node.inputs[0], 0, facts) if whole else 0


def _length(value: ir.Value | None, axis: int, facts: Facts) -> int:
    shape = facts.shapes.get(value.name or "") if value is not None else None
    size = shape[axis] if shape else ()
    return size[0] if len(set(size)) == 1 else 0
