"""Ops that are not continuous: rounding flips a choice, a threshold or a rank, and what follows is another thing.

Of two graphs that are equal to rounding, the values before such an op agree and those behind it need not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of


@dataclass(frozen=True, slots=True)
class Behind:
    """What lies behind choices.

    Attributes:
        values: Names of all values that hang on a choice.
        nodes: The nodes that choose, those without another one before them.
        last: The last values before: what choices, and whatever else works on what they chose, are given.
    """

    values: frozenset[str]
    nodes: tuple[str, ...]
    last: tuple[str, ...]


def behind_choices(graph: ir.Graph, weights: Collection[str], shared: Collection[str]) -> Behind:
    """What hangs on a choice by something that some weights have made.

    Args:
        graph: A graph in order.
        weights: Initializers: a choice by what does not depend on one of them is the same in any run.
        shared: Values that can be compared; the last ones before are among them.
    """
    moved: set[ir.Value] = {graph.initializers[name] for name in weights}
    behind: set[ir.Value] = set()
    nodes: list[str] = []
    last: dict[str, None] = {}
    for node in graph:
        inputs = [value for value in _read(node) if value in moved]
        hangs = any(value in behind for value in inputs)
        chooses = not hangs and bool(inputs) and _is_choice(node)
        if hangs or chooses:
            behind.update(node.outputs)
            last |= dict.fromkeys(
                name for value in inputs if value not in behind for name in _shared(value, moved, shared)
            )
        if chooses:
            nodes.append(node.name or node.op_type)
        if inputs:
            moved.update(node.outputs)
    return Behind(frozenset(value.name or "" for value in behind), tuple(nodes), tuple(last))


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, in bodies too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def _is_choice(node: ir.Node) -> bool:
    """Whether its outputs jump where its inputs move a little; a Cast to integers or truths does, too."""
    if node.op_type == "Cast":
        to = ir.DataType(node.attributes.get_int("to", 1))
        return not to.is_floating_point()
    return traits_of(node).jumps


def _shared(value: ir.Value, moved: Collection[ir.Value], shared: Collection[str]) -> Iterator[str]:
    """A value, or where only one of the graphs has it the nearest ones before it that both have."""
    waiting, passed = [value], set()
    while waiting:
        current = waiting.pop()
        if current in passed or current not in moved:
            continue
        passed.add(current)
        producer = current.producer()
        if current.name in shared:
            yield current.name or ""
        elif producer is not None:
            waiting += _read(producer)
