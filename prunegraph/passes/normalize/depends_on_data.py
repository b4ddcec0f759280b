"""Which values have lengths that hang on data: what a NonZero counts is nothing to freeze.

Blank weights make all such counts alike, so that runs at two sizes cannot tell.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of


def depends_on_data(graph: ir.Graph, stated: Collection[str]) -> set[str]:
    """Names of values downstream of a choice by data.

    Args:
        graph: Sorted.
        stated: Names of values that follow from constants and from lengths alone.
    """
    known = set(stated) | set(graph.initializers)
    chosen: set[str] = set()
    for node in graph:
        operands = [value.name or "" for value in node.inputs if value is not None]
        if not chosen.isdisjoint(operands) or traits_of(node).lengths_by_data or _told_by_data(node, known):
            chosen.update(value.name or "" for value in node.outputs)
    return chosen


def _told_by_data(node: ir.Node, known: Collection[str]) -> bool:
    """Whether an operand that says how long the outputs are is nothing that follows from constants and lengths."""
    told_by = traits_of(node).lengths_from
    return any(k in told_by and value is not None and value.name not in known for k, value in enumerate(node.inputs))
