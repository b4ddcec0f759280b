"""Which values have lengths that hang on data: what a NonZero counts is nothing to freeze.

Blank weights make all such counts alike, so that runs at two sizes cannot tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from prunegraph.analysis.bodies import is_end, states_of
from prunegraph.analysis.ops import traits_of


def depends_on_data(graph: ir.Graph, stated: Collection[str], shapes: Sequence[Mapping[str, object]] = ()) -> set[str]:
    """Names of values downstream of a choice by data.

    Lengths in a body are the same in every trip where each state that it hands on is as long as the one before the
    first trip, and nothing that the body computes says how long it is.

    Args:
        graph: Sorted.
        stated: Names of values that follow from constants and from lengths alone.
        shapes: Of every run the shapes by name.
    """
    pairs = [pair for node in graph if is_end(node) for pair in states_of(node)]
    varying: set[str] = set()
    while True:
        chosen = _downstream(graph, stated, set(varying))
        more = {state for first, state, last in pairs if last in chosen or _differ(shapes, first, state, last)}
        if more <= varying:
            return chosen
        varying |= more


def _differ(shapes: Sequence[Mapping[str, object]], *names: str) -> bool:
    """Whether some values are not seen to have one shape in every run."""
    seen = [[by_name.get(name) for name in names] for by_name in shapes]
    return not seen or any(each[0] is None or each[1:] != each[:-1] for each in seen)


def _downstream(graph: ir.Graph, stated: Collection[str], chosen: set[str]) -> set[str]:
    known = set(stated) | set(graph.initializers)
    for node in graph:
        operands = [value.name or "" for value in node.inputs if value is not None]
        if not chosen.isdisjoint(operands) or traits_of(node).lengths_by_data or _told_by_data(node, known):
            chosen.update(value.name or "" for value in node.outputs)
    return chosen


def _told_by_data(node: ir.Node, known: Collection[str]) -> bool:
    """Whether an operand that says how long the outputs are is nothing that follows from constants and lengths."""
    told_by = traits_of(node).lengths_from
    return any(k in told_by and value is not None and value.name not in known for k, value in enumerate(node.inputs))
