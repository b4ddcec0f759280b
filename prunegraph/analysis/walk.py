"""One walk over the nodes in order, to gather what happens to the slots of every Dim."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable

import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Expr
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.relations import AxisRule, Contraction, Reduction
from prunegraph.analysis.roles import Role, Roles
from prunegraph.analysis.solve import Solution


def gather_roles(graph: ir.Graph, solution: Solution) -> Roles:
    """What all nodes do to the slots of every Dim."""
    walk = _Walk(solution)
    for k, (node, rule) in enumerate(zip(graph, solution.rules, strict=True)):
        walk.visit(k, node, rule)
    return walk.roles


class _Walk:
    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.roles: Roles = defaultdict(Role)
        self.origin: dict[str, int] = {}  # the node that an activation comes from, see `join`
        self.picked: dict[str, bool] = {}  # slots of weights, and whether a router picks them
        self.copies: dict[str, set[int]] = {}  # along which Dims a value is the same everywhere

    def visit(self, k: int, node: ir.Node, rule: AxisRule) -> None:
        """The node at position `k`; those before it have been visited."""
        self.pick(node)
        copied = self.leaves(k, rule.copies)
        self.copy(node, copied)
        for contraction in rule.contractions:
            self.contract(k, node, contraction, copied)
        self.join(k, node, rule)
        self.reduce(k, rule)

    def is_weight(self, value: ir.Value | None) -> bool:
        return value is not None and value.name in self.solution.weights

    def leaves(self, node: int, exprs: Iterable[Expr]) -> set[int]:
        solution = self.solution
        return {leaf for expr in exprs for leaf in solution.space.leaves(solution.dim_of(node, expr))}

    def held(self, value: ir.Value) -> set[int]:
        """The leaves that a value holds."""
        dims = self.solution.axes.get(value.name or "", ())
        return {leaf for dim in dims for leaf in self.solution.space.leaves(dim)}

    def pick(self, node: ir.Node) -> None:
        """Follow slots of weights, such as the expert that a router names: what is picked is a weight still."""
        traits = traits_of(node)
        if any(lookup.rows and self.is_weight(node.inputs[lookup.table]) for lookup in traits.looks_up):
            for leaf in self.held(node.outputs[0]):
                self.roles[leaf].looked_up = True
        source = node.inputs[0] if node.inputs and 0 in traits.carries else None
        if source is not None and (self.is_weight(source) or source.name in self.picked):
            routed = self.picked.get(source.name or "") or any(self.roles[leaf].ranked for leaf in self.held(source))
            self.picked |= {value.name or "": routed for value in node.outputs}

    def copy(self, node: ir.Node, copied: set[int]) -> None:
        """Follow what Expand makes: it is the same along a Dim until it meets something that is not."""
        inputs = [value for value in node.inputs if value is not None]
        given = [self.copies.get(value.name or "", set()) for value in inputs]
        found = {
            leaf
            for leaf in set().union(*given)
            if all(leaf in same or leaf not in self.held(value) for value, same in zip(inputs, given, strict=True))
        }
        if not self.is_weight(node.inputs[0] if node.inputs else None):
            found |= copied
        if found:
            self.copies |= {value.name or "": found for value in node.outputs}

    def contract(self, k: int, node: ir.Node, contraction: Contraction, copied: Collection[int]) -> None:
        """A weight makes slots of others; two activations make scores, or carry what is not summed."""
        operands = [value for index in contraction.operands if (value := node.inputs[index]) is not None]
        weight = [self.is_weight(value) for value in operands]
        if all(weight):
            return
        if not any(weight) and sum(each := [value.name in self.picked for value in operands]) == 1:
            weight = each
        if any(weight):
            self.make(k, contraction, weight.index(True))
            return
        for leaf in self.leaves(k, contraction.batch):
            self.roles[leaf].batched = True
            same = (self.copies.get(value.name or "", ()) for value in operands)
            self.roles[leaf].copied |= leaf in copied or any(leaf in each for each in same)
        for leaf in self.leaves(k, contraction.summed):
            self.roles[leaf].scored = True
        for leaf in self.leaves(k, (*contraction.left, *contraction.right)):
            self.roles[leaf].carried = True

    def make(self, k: int, contraction: Contraction, weight: int) -> None:
        """The operand at position `weight` is a weight."""
        made = self.leaves(k, (contraction.left, contraction.right)[weight])
        sources = self.leaves(k, contraction.summed)
        for leaf in made:
            self.roles[leaf].made |= not contraction.conv
            self.roles[leaf].convolved |= contraction.conv
            self.roles[leaf].fed_by |= sources
        for leaf in sources:
            self.roles[leaf].summed = True
            self.roles[leaf].feeds |= made

    def join(self, k: int, node: ir.Node, rule: AxisRule) -> None:
        """Follow where activations come from: `x + x³` inside an activation function joins nothing, a residual does.

        A bias joins nothing either, also where a router picks it.
        """
        sources = {
            index: self.origin.get(value.name or "", -1)
            for index, value in enumerate(node.inputs)
            if value is not None and not self.is_weight(value) and not self.picked.get(value.name or "")
        }
        came_from = set(sources.values())
        fresh = bool(rule.contractions) or len(came_from) != 1
        for value in node.outputs:
            self.origin[value.name or ""] = k if fresh else next(iter(came_from))
        if len(came_from) > 1:
            by_leaf: dict[int, set[int]] = defaultdict(set)
            for ref in rule.joins:
                if ref.index in sources:
                    for leaf in self.leaves(k, [ref]):
                        by_leaf[leaf].add(sources[ref.index])
            for leaf, places in by_leaf.items():
                self.roles[leaf].joined |= len(places) > 1

    def reduce(self, k: int, rule: AxisRule) -> None:
        """Means, rankings, and how many slots they need."""
        for reduce in rule.reduces:
            for leaf in self.leaves(k, [reduce.ref]):
                self.roles[leaf].mean |= reduce.kind.weighs
                self.roles[leaf].ranked |= reduce.kind is Reduction.RANK
            if reduce.least > 1:
                self.need(self.solution.space.resolve(self.solution.dim_of(k, reduce.ref)), reduce.least)

    def need(self, axis: Axis, least: int) -> None:
        """So many slots of an axis must stay; in a product, the last Dim sees to that as far as it can."""
        for term in axis.terms:
            missing = least
            for factor in reversed(term):
                if isinstance(factor, Axis):
                    self.need(factor, missing)
                    continue
                share = min(missing, self.solution.dim_size(factor)[0])
                self.roles[factor].least = max(self.roles[factor].least, share)
                missing = math.ceil(missing / share)
