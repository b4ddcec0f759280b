"""Walk over the nodes of a graph to gather what happens to the slots of every Dim."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import onnx_ir as ir

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.ops import FIRST, traits_of
from prunegraph.analysis.origins import Origins
from prunegraph.analysis.recurrences import Recurrences
from prunegraph.analysis.relations import Reduction
from prunegraph.analysis.roles import Role, Roles
from prunegraph.analysis.solution import ContractionSite, Operand, ReduceSite, Solution


def gather_roles(graph: ir.Graph, solution: Solution) -> Roles:
    """What all nodes do to the slots of every Dim."""
    walk = _Walk(solution)
    nodes = list(graph)
    for site in solution.reduces:
        walk.reduce(site, nodes[site.node].inputs[site.index])
    for k, node in enumerate(nodes):
        walk.visit(k, node)
    return walk.roles


class _Walk:
    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.roles: Roles = defaultdict(Role)
        self.origins = Origins(solution)
        self.recurrences = Recurrences(solution)
        self.picked: dict[str, bool] = {}  # slots of weights, and whether a router picks them
        self.copies: dict[str, set[int]] = {}  # along which Dims a value is the same everywhere
        self.straight: set[str] = set()  # what a weight has just made, with nothing but linear ops since
        self.weighted: set[int] = set()  # nodes that contract with a weight
        self.learnt: set[str] = set()  # values that weights have had a part in; an adjacency that is given is not one
        self.weighed: set[str] = set()  # what a softmax has made, wherever its numbers are moved
        self.products: dict[str, tuple[str, str]] = {}  # the two operands whose product a value is
        self.attended: dict[str, frozenset[int]] = {}  # slots of a value that attention has carried there
        self.sums: dict[int, list[int]] = defaultdict(list)  # by node the axes that it sums, with nothing else
        for site in solution.reduces:
            if site.kind is Reduction.SUM and site.index == 0 and not solution.contracted[site.node]:
                self.sums[site.node].append(site.axis)

    def visit(self, k: int, node: ir.Node) -> None:
        """The node at position `k`; those before it have been visited."""
        self.pick(k, node)
        self.copy(node, self.copied(k))
        for contraction in self.solution.contracted[k]:
            self.contract(contraction)
        carried = self.sum_products(k) | self.carried(k)
        self.attend(k, node, carried)
        self.weigh(k, node)
        self.join(k, node)
        for leaf in self.recurrences.visit(k, node, self.learnt):
            self.roles[leaf].recurs = True
        self.go_straight(k, node)

    def is_weight(self, value: ir.Value | None) -> bool:
        return value is not None and value.name in self.solution.weights

    def copied(self, k: int) -> frozenset[int]:
        """The leaves along which a node repeats what it is given."""
        return self.solution.leaves_of(k, self.solution.rules[k].copies)

    def leaves_of(self, value: ir.Value) -> frozenset[int]:
        """The leaves that a value holds."""
        return self.solution.leaves(value.name or "")

    def pick(self, k: int, node: ir.Node) -> None:
        """Follow slots of weights, such as the expert that a router names: what is picked is a weight still."""
        traits = traits_of(node)
        for table in (node.inputs[lookup.table] for lookup in traits.looks_up if lookup.rows):
            if table is None or not self.is_weight(table):
                continue
            for leaf in self.leaves_of(node.outputs[0]):
                self.roles[leaf].looked_up = True
                if leaf in self.leaves_of(table):
                    self.roles[leaf].makers.setdefault(table.name or "", k)
        source = node.inputs[0] if node.inputs and 0 in traits.carries else None
        if source is not None and (self.is_weight(source) or source.name in self.picked):
            routed = self.picked.get(source.name or "") or any(
                self.roles[leaf].ranked for leaf in self.leaves_of(source)
            )
            self.picked |= {value.name or "": routed for value in node.outputs}

    def copy(self, node: ir.Node, copied: frozenset[int]) -> None:
        """Follow what Expand makes: it is the same along a Dim until it meets something that is not."""
        inputs = [value for value in node.inputs if value is not None]
        given = [self.copies.get(value.name or "", set()) for value in inputs]
        same_along = {
            leaf
            for leaf in set().union(*given)
            if all(leaf in same or leaf not in self.leaves_of(value) for value, same in zip(inputs, given, strict=True))
        }
        if not self.is_weight(node.inputs[0] if node.inputs else None):
            same_along |= copied
        if same_along:
            self.copies |= {value.name or "": same_along for value in node.outputs}

    def contract(self, contraction: ContractionSite) -> None:
        """A weight makes slots of others; two activations make scores, or carry what is not summed."""
        left, right = contraction.operands
        if left.is_weight and right.is_weight:
            return
        weight, picked = contraction.weight, [each for each in contraction.operands if each.value in self.picked]
        if weight is None and len(picked) == 1:
            weight = picked[0]
        if weight is not None:
            self.make(contraction, weight)
            return
        copied = self.copied(contraction.node)
        for leaf in contraction.batch:
            self.roles[leaf].batched = True
            same = (self.copies.get(each.value, ()) for each in contraction.operands)
            left_has, right_has = (leaf in self.solution.leaves(each.value) for each in contraction.operands)
            broadcast = left_has != right_has  # a fused op makes both operands inside: neither has it
            self.roles[leaf].copied |= leaf in copied or broadcast or any(leaf in each for each in same)
        for leaf in contraction.summed:
            self.roles[leaf].scored = True
        for leaf in self.attending(contraction):
            self.roles[leaf].carried = True
            self.roles[leaf].compared |= any(self.roles[summed].made for summed in contraction.summed)

    def weigh(self, k: int, node: ir.Node) -> None:
        """Scores that a softmax weighs: what queries alone carried into them tells scores apart, as heads do."""
        if not traits_of(node).softmax:
            return
        weighed = {site.axis for site in self.solution.reduces if site.node == k}
        name = self.solution.inputs[k][0]
        for axis in range(len(self.solution.axes.get(name, ()))):
            for leaf in self.solution.leaves(name, axis) if axis not in weighed else ():
                self.roles[leaf].apart |= self.roles[leaf].compared

    def carried(self, k: int) -> frozenset[int]:
        """The leaves of activations that a node carries along while it contracts two of them."""
        sites = [site for site in self.solution.contracted[k] if site.of_activations]
        return frozenset[int]().union(*map(self.attending, sites))

    def attending(self, contraction: ContractionSite) -> frozenset[int]:
        """The leaves of one operand that the other carries along, where that hangs on weights as attention does."""
        left, right = contraction.operands
        carried = (each.leaves for each, by in ((left, right), (right, left)) if by.value in self.learnt)
        return frozenset[int]().union(*carried)

    def sum_products(self, k: int) -> frozenset[int]:
        """Values times what a softmax weighs them with, summed: attention in two nodes, as where heads sample an image.

        Returns:
            The leaves of the values that it carries along, none where it has no heads.
        """
        name = self.solution.inputs[k][0] if k in self.sums else ""
        factors = self.products.get(name, ())
        values = [factor for factor in factors if factor not in self.weighed]
        if len(factors) != 2 or len(values) != 1 or values[0] in self.solution.weights:
            return frozenset()
        summed = frozenset[int]().union(*(self.solution.leaves(name, axis) for axis in self.sums[k]))
        weights = next(factor for factor in factors if factor in self.weighed)
        here, there = (self.made(self.solution.leaves(factor) - summed) for factor in (weights, values[0]))
        heads, carried = here & there, there - here
        if not heads or not carried:  # one weight a channel is no head
            return frozenset()
        for leaf in heads:
            self.roles[leaf].batched = True
        for leaf in carried:
            self.roles[leaf].carried = True
        return carried

    def made(self, leaves: frozenset[int]) -> frozenset[int]:
        """Those that a weight has made."""
        return frozenset(leaf for leaf in leaves if self.roles[leaf].made or self.roles[leaf].convolved)

    def attend(self, k: int, node: ir.Node, carried: frozenset[int]) -> None:
        """Follow what a softmax made, products of activations, and slots that attention has carried."""
        names, outputs = self.solution.inputs[k], [value.name or "" for value in node.outputs]
        traits = traits_of(node)
        if traits.softmax or (traits.carries == FIRST and not self.weighed.isdisjoint(names[:1])):
            self.weighed.update(outputs)
        if traits.multiplies and len(names) == 2:
            self.products[outputs[0]] = (names[0], names[1])
        if k in self.weighted or traits.looks_up or not self.learnt.isdisjoint(names):
            self.learnt.update(outputs)
        slots = carried.union(*(self.attended.get(name, ()) for name in names))
        for value in node.outputs if slots else ():
            self.attended[value.name or ""] = slots & self.leaves_of(value)

    def make(self, contraction: ContractionSite, weight: Operand) -> None:
        """The operand is a weight, or was picked out of one."""
        for leaf in weight.leaves:
            self.roles[leaf].made |= not contraction.conv
            self.roles[leaf].convolved |= contraction.conv
            self.roles[leaf].fed_by |= contraction.summed
            self.roles[leaf].makers.setdefault(weight.value, contraction.node)
        self.weighted.add(contraction.node)
        data = next(each for each in contraction.operands if each is not weight)
        sources, targets = self.length(contraction.summed), self.length(weight.leaves)
        for leaf in weight.leaves:
            self.roles[leaf].narrow &= self.solution.dim_size(leaf)[0] < sources
        for leaf in contraction.summed:
            self.roles[leaf].summed = True
            self.roles[leaf].read_before |= leaf not in self.attended.get(data.value, ())
            self.roles[leaf].narrow &= self.solution.dim_size(leaf)[0] < targets
            self.roles[leaf].read_straight |= data.value in self.straight
            self.roles[leaf].read_bent |= data.value not in self.straight
            self.roles[leaf].feeds |= weight.leaves

    def join(self, k: int, node: ir.Node) -> None:
        """Follow where activations come from: `x + x³` inside an activation function joins nothing, a residual does.

        A bias joins nothing either, also where a router picks it.
        """
        data = {
            index: value.name or ""
            for index, value in enumerate(node.inputs)
            if value is not None and not self.is_weight(value) and not self.picked.get(value.name or "")
        }
        sources = self.origins.visit(k, node, data)
        if len(set(sources.values())) < 2 or not self.solution.rules[k].joins:
            return
        by_leaf: dict[int, set[int]] = defaultdict(set)
        for ref in self.solution.rules[k].joins:
            if ref.index in sources:
                for leaf in self.solution.leaves_of(k, [ref]):
                    by_leaf[leaf].add(sources[ref.index])
        groups = {frozenset(each) for each in by_leaf.values()}
        known = {places: self.origins.follow(places, self.weighted) for places in groups}
        beside = all(name in self.straight for name in data.values())
        for leaf, places in by_leaf.items():
            follows, weighted = known[frozenset(places)]
            role = self.roles[leaf]
            role.streams |= weighted
            role.recurs |= follows and not weighted
            role.joined |= len(places) > 1 and (follows or not beside)

    def go_straight(self, k: int, node: ir.Node) -> None:
        """Follow what a weight has made through ops that are linear in it."""
        traits = traits_of(node)
        data = [value.name or "" for value in node.inputs if value is not None and not self.is_weight(value)]
        by_weight = k in self.weighted and traits.linear
        passed = (traits.linear or 0 in traits.carries) and len(data) == 1 and data[0] in self.straight
        if by_weight or passed:
            self.straight |= {value.name or "" for value in node.outputs}

    def length(self, leaves: Iterable[int]) -> int:
        """The product of the lengths of leaves."""
        return math.prod(self.solution.dim_size(leaf)[0] for leaf in leaves)

    def reduce(self, site: ReduceSite, value: ir.Value | None) -> None:
        """Means, rankings, extremes, and how many slots they need."""
        name = self.solution.inputs[site.node][site.index]
        extreme = site.kind is Reduction.MIN or (site.kind is Reduction.MAX and not _is_nonnegative(value))
        for leaf in self.solution.leaves(name, site.axis):
            self.roles[leaf].mean |= site.kind.weighs
            self.roles[leaf].extreme |= extreme
            self.roles[leaf].ranked |= site.kind is Reduction.RANK
            self.roles[leaf].added_up |= site.kind is Reduction.SUM and not self.solution.contracted[site.node]
        if site.least > 1:
            self.need(self.solution.resolve(name)[site.axis], site.least)

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


def _is_nonnegative(value: ir.Value | None) -> bool:
    """Whether no number of a value is below zero, so that a zero among them is never larger than the rest."""
    while value is not None and (node := value.producer()) is not None:
        traits = traits_of(node)
        if traits.nonnegative:
            return True
        value = node.inputs[0] if traits.carries == FIRST else None
    return False
