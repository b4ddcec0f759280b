"""Recurrences that are written step by step: a sum of activations, weighed by an activation, goes into the next sum."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from prunegraph.analysis.ops import FIRST, traits_of
from prunegraph.analysis.solution import Solution

Leaves = frozenset[int]


class Recurrences:
    """Follows sums of activations along the slots of Dims, as a walk visits the nodes in their order.

    `h = decay * h + new`: what decays is neither a residual stream, to which something is added that comes of it, nor a
    projection in parts, of which nothing is weighed in between.
    """

    def __init__(self, solution: Solution) -> None:
        """Nothing is followed yet."""
        self.solution = solution
        self.added: dict[str, Leaves] = {}  # values that are sums, and along which slots
        self.decayed: dict[str, Leaves] = {}  # the same, once activations have weighed them

    def visit(self, k: int, node: ir.Node, learnt: Collection[str]) -> Leaves:
        """The node at position `k`.

        Args:
            k: Its position.
            node: The node.
            learnt: Values that weights have had a part in.

        Returns:
            Leaves along which it adds something to a sum that has decayed.
        """
        names = [value.name or "" for value in node.inputs if value is not None]
        outputs = [value.name or "" for value in node.outputs]
        joins = self.solution.rules[k].joins
        if joins and sum(name not in self.solution.weights for name in names) > 1:
            joined = self.solution.leaves_of(k, joins)
            self.added |= dict.fromkeys(outputs, joined)
            return Leaves().union(*(self.decayed.get(name, ()) for name in names)) & joined
        traits = traits_of(node)
        if traits.carries == FIRST and names:
            self._keep(self.added, outputs, self.added.get(names[0]))
            self._keep(self.decayed, outputs, self.decayed.get(names[0]))
        elif traits.multiplies and len(names) == 2:
            for sums, weighing in (names, names[::-1]):
                if weighing in learnt and weighing not in self.solution.weights and weighing != sums:
                    self._keep(self.decayed, outputs, self.added.get(sums) or self.decayed.get(sums))
        return Leaves()

    def _keep(self, store: dict[str, Leaves], outputs: Collection[str], leaves: Leaves | None) -> None:
        for name in outputs if leaves else ():
            store[name] = (leaves or Leaves()) & self.solution.leaves(name)
