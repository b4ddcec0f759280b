"""From a graph and facts to its groups: every node states its relations, the space unifies, what is free may shrink."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence

import onnx_ir as ir

from prunegraph.analysis.axes import Expr, Fresh, Prod, Ref, Size, Sum, expr_size, refs_of
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.names import matches
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.registry import rule_for
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, Contraction, NodeView, Reduction, SizeSite
from prunegraph.analysis.router_indices import rankings
from prunegraph.analysis.solution import ContractionSite, Operand, ReduceSite, Site, Solution
from prunegraph.analysis.space import CannotUnify, Pin, Space

__all__ = ["ContractionSite", "Operand", "ReduceSite", "Site", "Solution", "solve"]

logger = logging.getLogger(__name__)

STRICT = bool(os.environ.get("PRUNEGRAPH_STRICT"))
"""Whether a bug in a rule is raised, as tests want it; a user gets a pin and a warning instead."""


def solve(
    graph: ir.Graph, facts: Facts, allow_io: Sequence[str] = (), unrelated: Collection[tuple[int, int]] = ()
) -> Solution:
    """Relate all axes of a graph.

    Args:
        graph: Every value named, constants as initializers.
        facts: Shapes and integers, see `Facts`.
        allow_io: Patterns of graph inputs and outputs that may shrink.
        unrelated: (node, axis) pairs: what the node says of this axis of its first input is left out.
    """
    return _Solver(graph, facts, unrelated).solve(allow_io)


class _Solver:
    def __init__(self, graph: ir.Graph, facts: Facts, unrelated: Collection[tuple[int, int]]) -> None:
        self.unrelated: dict[int, set[int]] = {}
        for node, axis in unrelated:
            self.unrelated.setdefault(node, set()).add(axis)
        self.graph = graph
        self.facts = facts
        self.nodes = list(graph)
        self.labels = tuple(node.name or f"{node.op_type}_{k}" for k, node in enumerate(self.nodes))
        self.space = Space(facts.probes)
        self.axes: dict[str, tuple[int, ...]] = {}
        self.refs: dict[tuple[str, int, tuple[Size, ...]], tuple[Ref, ...]] = {}
        self.fresh: dict[Fresh, int] = {}  # by identity: every one is an axis of its own
        self.weights: set[str] = set(graph.initializers)
        self.positions = rankings(graph, facts)

    def solve(self, allow_io: Sequence[str]) -> Solution:
        self._declare()
        rules = tuple(self._rule(k, node) for k, node in enumerate(self.nodes))
        self._pin_edges(allow_io)
        for k, rule in enumerate(rules):
            for expr, why in rule.pins:
                self.space.pin(self._dim(k, expr), Pin(why, self.labels[k]))
        self._relate(rules)
        self._pin_dynamic()
        return Solution(
            space=self.space,
            facts=self.facts,
            axes=self.axes,
            labels=self.labels,
            inputs=tuple(tuple(_name(value) for value in node.inputs) for node in self.nodes),
            outputs=tuple(tuple(_name(value) for value in node.outputs) for node in self.nodes),
            rules=rules,
            contracted=tuple(
                tuple(self._contraction(k, contraction) for contraction in rule.contractions)
                for k, rule in enumerate(rules)
            ),
            fresh=self.fresh,
            rewrites=tuple(self._site(k, site) for k, rule in enumerate(rules) for site in rule.rewrites),
            frozen_lengths=tuple(self._site(k, site) for k, rule in enumerate(rules) for site in rule.frozen_lengths),
            reduces=tuple(
                ReduceSite(k, each.ref.index, each.ref.axis, each.kind, each.inside, each.zero, each.least)
                for k, rule in enumerate(rules)
                for each in rule.reduces
            ),
            weights=frozenset(self.weights),
        )

    # ---- stating ---------------------------------------------------------------------------------------------------

    def _declare(self) -> None:
        values = [*self.graph.inputs, *self.graph.initializers.values()]
        values += [value for node in self.nodes for value in node.outputs]
        for value in values:
            if value.name and value.name not in self.axes and value.name in self.facts.shapes:
                self.axes[value.name] = tuple(self.space.dim(size) for size in self.facts.shapes[value.name])
        for node in self.nodes:
            traits = traits_of(node)
            stated = traits.states_lengths  # lengths say nothing about what an activation holds
            constant = node.inputs and all(value is None or value.name in self.weights for value in node.inputs)
            if stated or (constant and not traits.varies):
                self.weights.update(value.name or "" for value in node.outputs)
        for value in self.graph.initializers.values():
            if value.dtype == ir.DataType.INT64:
                # Integer tables are positions and lengths, never weights.
                self.space.pin_all(self.axes[value.name or ""], Pin("a table of integers", value.name or ""))

    def _rule(self, index: int, node: ir.Node) -> AxisRule:
        view = self._view(index, node)
        captured = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
        rule = None if captured else rule_for(node.domain, node.op_type)
        if rule is not None:
            try:
                stated = rule(view)
                self._check(stated)
                for implied in (pin_unmentioned, pin_norms_of_weights, pin_unmasked_means):
                    stated += implied(view, stated)
                return self._without_unrelated(index, stated)
            except CannotAnalyze as reason:
                why = f"{node.op_type} could not be understood: {reason}"
                why += f" ({self.facts.unseen})" if self.facts.unseen else ""
            except Exception as bug:
                if STRICT:
                    raise
                logger.warning("the axis rule of %s failed at %s", node.op_type, self.labels[index], exc_info=bug)
                why = f"the axis rule of {node.op_type} failed: {bug}"
        elif captured:
            why = f"captured by the body of {node.op_type}"
            self._pin_captured(captured, why, self.labels[index])
        else:
            domain = f" of domain {node.domain}" if node.domain else ""
            why = f"no axis rule for {node.op_type}{domain}"
        return AxisRule(pins=tuple((ref, why) for axes in (*view.inputs, *view.outputs) for ref in axes or ()))

    def _without_unrelated(self, node: int, rule: AxisRule) -> AxisRule:
        left_out = self.unrelated.get(node)
        if left_out is None:
            return rule

        def about(expr: Expr) -> bool:
            return isinstance(expr, Ref) and expr.side == "x" and expr.index == 0 and expr.axis in left_out

        return AxisRule(equal=tuple(pair for pair in rule.equal if not any(map(about, pair))))

    def _check(self, rule: AxisRule) -> None:
        """A relation between different sizes is a bug of the rule or a surprise of the model; neither may pass."""
        for a, b in rule.equal:
            if expr_size(a, self.facts.probes) != expr_size(b, self.facts.probes):
                raise CannotAnalyze(f"{a} and {b} differ in size")

    def _pin_captured(self, bodies: Iterable[ir.Graph], why: str, label: str) -> None:
        """Pin what bodies read from outside, with the node inside that reads it."""
        for body in bodies:
            for node in body.all_nodes():
                pin = Pin(why, f"{label}: {node.name or node.op_type}")
                for value in node.inputs:
                    if value is not None and value.name in self.axes and value.graph is not body:
                        self.space.pin_all(self.axes[value.name], pin)
            for value in body.outputs:
                if value.name in self.axes:
                    self.space.pin_all(self.axes[value.name], Pin(why, label))

    def _view(self, index: int, node: ir.Node) -> NodeView:
        return NodeView(
            op=node.op_type,
            domain=node.domain,
            version=node.version or self.graph.opset_imports.get(node.domain, 0),
            inputs=tuple(self._refs("x", k, value) for k, value in enumerate(node.inputs)),
            outputs=tuple(self._refs("y", k, value) for k, value in enumerate(node.outputs)),
            attributes={name: attribute.value for name, attribute in node.attributes.items()},
            constants=[
                self.facts.integers.get(value.name) if value is not None and value.name else None
                for value in node.inputs
            ],
            probes=self.facts.probes,
            weights=tuple(value is None or value.name in self.weights for value in node.inputs),
            positions=self.positions.get(index),
        )

    def _refs(self, side: str, index: int, value: ir.Value | None) -> tuple[Ref, ...] | None:
        shape = self.facts.shapes.get(value.name) if value is not None and value.name else None
        if shape is None:
            return None
        key = side, index, shape
        if key not in self.refs:  # layers repeat, and so do their shapes
            self.refs[key] = tuple(Ref(side, index, axis, size) for axis, size in enumerate(shape))
        return self.refs[key]

    # ---- relating --------------------------------------------------------------------------------------------------

    def _ref(self, node: int, ref: Ref) -> int:
        values = self.nodes[node].inputs if ref.side == "x" else self.nodes[node].outputs
        value = values[ref.index]
        assert value is not None and value.name is not None
        return self.axes[value.name][ref.axis]

    def _dim(self, node: int, expr: Expr) -> int:
        match expr:
            case Ref():
                return self._ref(node, expr)
            case Fresh(size, _, why):
                if expr not in self.fresh:
                    self.fresh[expr] = new = self.space.dim(size)
                    if why:
                        self.space.pin(new, Pin(why, self.labels[node]))
                return self.fresh[expr]
            case Prod(factors):
                return self.space.product(self._dim(node, factor) for factor in factors)
            case Sum(terms):
                return self.space.concat(self._dim(node, term) for term in terms)

    def _pin_edges(self, allow_io: Sequence[str]) -> None:
        for values, what in ((self.graph.inputs, "input"), (self.graph.outputs, "output")):
            for value in values:
                name = value.name or ""
                default = what == "input" and name in self.graph.initializers
                if default or matches([name], allow_io):
                    continue
                self.space.pin_all(self.axes.get(name, ()), Pin(f"graph {what}", name))

    def _relate(self, rules: Sequence[AxisRule]) -> None:
        """Plain equalities first, then structure; what clashes waits until nothing else moves, and is pinned then."""
        plain: list[tuple[int, Expr, Expr]] = []
        structured: list[tuple[int, Expr, Expr]] = []
        for k, rule in enumerate(rules):
            for a, b in rule.equal:
                (plain if isinstance(a, Ref) and isinstance(b, Ref) else structured).append((k, a, b))
        waiting = self._try([*plain, *structured])
        while waiting:
            still = self._try(waiting)
            if len(still) == len(waiting):
                if not self._pin_dynamic():
                    break
            waiting = still
        for k, a, b, reason in waiting:
            pin = Pin(f"cannot reconcile {a} with {b}: {reason}", self.labels[k])
            self.space.pin(self._dim(k, a), pin)
            self.space.pin(self._dim(k, b), pin)

    def _try(self, relations: Iterable[tuple[int, Expr, Expr, *tuple[str, ...]]]) -> list[tuple[int, Expr, Expr, str]]:
        clashed = []
        for k, a, b, *_ in relations:
            dims = self._dim(k, a), self._dim(k, b)
            try:
                with self.space.transaction():
                    self.space.equate(*dims)
            except CannotUnify as reason:
                clashed.append((k, a, b, str(reason)))
            self.space.commit()
        return clashed

    def _pin_dynamic(self) -> bool:
        """Lengths that vary from run to run have no slots to choose from."""
        pinned = False
        for value, dims in self.axes.items():
            for dim in dims:
                for leaf in self.space.leaves(dim):
                    if not self.space.pins(leaf) and len(set(self.space.size(leaf))) > 1:
                        self.space.pin(leaf, Pin("a dynamic length", value))
                        pinned = True
        self.space.commit()
        return pinned

    # ---- resolving -------------------------------------------------------------------------------------------------

    def _site(self, node: int, site: SizeSite) -> Site:
        return Site(node, site.place, site.entry, self.space.resolve(self._dim(node, site.states)), site.sign)

    def _leaves(self, node: int, exprs: Iterable[Expr]) -> frozenset[int]:
        return frozenset(leaf for expr in exprs for leaf in self.space.leaves(self._dim(node, expr)))

    def _contraction(self, node: int, contraction: Contraction) -> ContractionSite:
        left, right = (
            self._operand(node, index, contraction.summed, free)
            for index, free in zip(contraction.operands, (contraction.left, contraction.right), strict=True)
        )
        return ContractionSite(
            node=node,
            operands=(left, right),
            batch=self._leaves(node, contraction.batch),
            summed=self._leaves(node, contraction.summed),
            macs=tuple(self.space.resolve(self._dim(node, expr)) for expr in contraction.macs),
            conv=contraction.conv,
        )

    def _operand(self, node: int, index: int, summed: Sequence[Expr], free: Sequence[Expr]) -> Operand:
        value = _name(self.nodes[node].inputs[index])
        return Operand(
            value=value,
            index=index,
            is_weight=value in self.weights,
            summed=_own_axes(summed, index),
            free=_own_axes(free, index),
            leaves=self._leaves(node, free),
        )


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _own_axes(exprs: Sequence[Expr], index: int) -> tuple[int, ...]:
    """Which axes of an input expressions mention, in order."""
    refs = (ref for expr in exprs for ref in refs_of(expr))
    return tuple(dict.fromkeys(ref.axis for ref in refs if ref.side == "x" and ref.index == index))


def pin_unmentioned(view: NodeView, rule: AxisRule) -> AxisRule:
    """Axes that a rule says nothing about stay whole: what is not known to be free is not free."""
    exprs = [*(expr for pair in rule.equal for expr in pair), *(expr for expr, _ in rule.pins), *rule.copies]
    exprs += [*(reduce.ref for reduce in rule.reduces), *(site.states for site in rule.rewrites)]
    mentioned = {ref for expr in exprs for ref in refs_of(expr)}
    axes = [ref for operand in (*view.inputs, *view.outputs) for ref in operand or ()]
    left = [ref for ref in axes if ref not in mentioned and not view.one(ref)]
    return AxisRule(pins=tuple((ref, f"{view.op} gives it no meaning") for ref in left))


def pin_norms_of_weights(view: NodeView, rule: AxisRule) -> AxisRule:
    """What is summed to a norm of a weight stays whole: a unit that goes would change the norm, though it is zero.

    A mean over a weight is no different from one over activations: the axis may shrink, but not exactly.
    """
    if not all(view.weights) or rule.contractions:
        return AxisRule()
    sums = [reduce.ref for reduce in rule.reduces if reduce.kind is not Reduction.MEAN]
    return AxisRule(pins=tuple((ref, f"{view.op} of a weight") for ref in sums))


def pin_unmasked_means(view: NodeView, rule: AxisRule) -> AxisRule:
    """A mean that no trait tells how to take over what stays keeps its axes whole: nothing could prove the result."""
    traits = traits_of(view.op, view.domain)
    if traits.norm is not None or traits.averages:
        return AxisRule()
    means = [reduce.ref for reduce in rule.reduces if reduce.kind is Reduction.MEAN]
    return AxisRule(pins=tuple((ref, f"there is no masked form of {view.op}") for ref in means))
