"""How the body of a Loop or Scan stands in a graph that is analysed: its nodes among the others, once.

`Carried`, `Scanned` and `Trip` stand for the inputs of the body.  `Repeat` (or `While`, where the body itself says when
it ends) takes the number of trips, the condition and what the body is given, then what it makes, and gives what the
Loop gives.  So the axes of a body are axes of the graph.  No runtime knows these ops: `runtime.nest_bodies` writes the
Loop again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

DOMAIN = "prunegraph"
"""Of the ops that stand for Loops, Scans and Ifs."""

CHOOSE = "Choose"
"""What an If gives: the result of one of two branches."""

CARRIED, SCANNED, TRIP = "Carried", "Scanned", "Trip"
"""What a body is given: a state, a slice of what is scanned, the number of the trip or its condition."""

REPEAT, WHILE = "Repeat", "While"
"""What a Loop or Scan gives; the second where what a body computes says whether there is another trip."""

LOOP, INDEX = "loop", "index"
"""Attributes of what a body is given: which Loop it belongs to, and which input of the body it is."""

OP, GIVEN = "kind", "given"
"""Attributes of what a Loop gives: Loop or Scan, and how many inputs its body has, which come first."""


def is_end(node: ir.Node) -> bool:
    """Whether a node stands for what a Loop or Scan gives."""
    return node.domain == DOMAIN and node.op_type in (REPEAT, WHILE)


def is_entry(node: ir.Node) -> bool:
    """Whether a node stands for an input of a body."""
    return node.domain == DOMAIN and node.op_type in (CARRIED, SCANNED, TRIP)


def entries(graph: ir.Graph) -> Mapping[str, Mapping[int, ir.Node]]:
    """By the name of a Loop, what its body is given, by number."""
    by_loop: dict[str, dict[int, ir.Node]] = {}
    for node in graph:
        if is_entry(node):
            by_loop.setdefault(node.attributes[LOOP].as_string(), {})[node.attributes[INDEX].as_int()] = node
    return by_loop


def states_of(end: ir.Node) -> list[tuple[str, str, str]]:
    """The names of every state of a Loop or Scan: before the first trip, in a trip, and as its body hands it on."""
    given = end.attributes[GIVEN].as_int()
    first, scans = (
        (2, 0) if end.attributes[OP].as_string() == "Loop" else (0, end.attributes["num_scan_inputs"].as_int())
    )
    names = [value.name or "" if value is not None else "" for value in end.inputs]
    states = []
    for k in range(first, given - scans):
        value = end.inputs[k]
        entry = value.producer() if value is not None else None
        before = entry.inputs[0] if entry is not None and entry.inputs else None
        after = names[given + k - (1 if first else 0)]
        states.append((before.name or "" if before is not None else "", names[k], after))
    return states


def nodes_in_bodies(graph: ir.Graph) -> frozenset[ir.Node]:
    """Every node of a graph that runs once a trip."""
    given = [node for node in graph if is_entry(node)]
    return frozenset({*given, *behind(given, is_end)})


def behind(nodes: Iterable[ir.Node], stops: Callable[[ir.Node], bool]) -> set[ir.Node]:
    """The nodes that hang on what some make, as far as those that stop it.

    Args:
        nodes: What they hang on.
        stops: Whether a node and what hangs on it is left out.
    """
    hang: set[ir.Node] = set()
    waiting = list(nodes)
    while waiting:
        for value in waiting.pop().outputs:
            for reader in value.consumers():
                if reader not in hang and not stops(reader):
                    hang.add(reader)
                    waiting.append(reader)
    return hang
