"""Where activations come from: the node that made them, and whether one is computed from another."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from prunegraph.analysis.solution import Solution

OUTSIDE = -1
"""In place of a node: an activation comes from an input of the graph."""


class Origins:
    """The nodes that activations come from: contractions, and where several of these meet."""

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        self._producer = {name: k for k, names in enumerate(solution.outputs) for name in names if name}
        self._origin: dict[str, int] = {}

    def visit(self, k: int, node: ir.Node, data: Mapping[int, str]) -> dict[int, int]:
        """Follow one node; those before it have been visited.

        Args:
            k: Its position.
            node: The node.
            data: Names of the activations that it is given, by the index of the operand.

        Returns:
            Where each of them comes from.
        """
        sources = {index: self._origin.get(name, OUTSIDE) for index, name in data.items()}
        places = set(sources.values())
        fresh = bool(self._solution.contracted[k]) or len(places) != 1
        for value in node.outputs:
            self._origin[value.name or ""] = k if fresh else next(iter(places))
        return sources

    def follow(self, origins: frozenset[int], weighted: Collection[int]) -> tuple[bool, bool]:
        """Whether one of several nodes is computed from another, and whether a weight stands between.

        What comes from outside counts as both: nothing is known of it.

        Args:
            origins: The nodes.
            weighted: Those that contract with a weight.
        """
        if len(origins) < 2:
            return False, False
        first = min(origins)
        if first < 0:
            return True, True
        reached = False
        for start in origins - {first}:
            waiting, passed = [(start, False)], set[tuple[int, bool]]()
            while waiting:
                node, by_weight = waiting.pop()
                if node in origins and node != start:
                    reached = True
                    if by_weight:
                        return True, True
                by_weight |= node in weighted
                for name in self._solution.inputs[node]:
                    step = self._producer.get(name, OUTSIDE), by_weight
                    if step[0] >= first and step not in passed:
                        passed.add(step)
                        waiting.append(step)
        return reached, False
