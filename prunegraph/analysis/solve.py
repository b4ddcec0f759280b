"""From a graph and facts to its groups: every node states its relations, the space unifies, what is free may shrink."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Expr, Fresh, Prod, Ref, Size, Sum, expr_size
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.implied import statistics, unmasked_means, unsaid
from prunegraph.analysis.names import matches
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.registry import rule_for
from prunegraph.analysis.relations import AxisRule, NodeView, Reduction, Unknown
from prunegraph.analysis.router_indices import rankings
from prunegraph.analysis.space import Clash, Pin, Space


@dataclass(frozen=True, slots=True)
class Site:
    """A `SizeSite` of a node (by position in the graph), its expression resolved."""

    node: int
    place: int | str
    entry: int | None
    axis: Axis
    sign: int


@dataclass(frozen=True, slots=True)
class ReduceSite:
    """Axis `axis` of input `index` of a node (by position) is reduced; see `Reduce`."""

    node: int
    index: int
    axis: int
    kind: Reduction
    inside: bool
    zero: int | None


@dataclass(frozen=True, slots=True)
class Solution:
    """The settled space: what every axis is made of, and what nodes said."""

    space: Space
    facts: Facts
    axes: Mapping[str, tuple[int, ...]]
    labels: tuple[str, ...]
    rules: tuple[AxisRule, ...]
    dim_of: Callable[[int, Expr], int]
    sites: tuple[Site, ...]
    lengths: tuple[Site, ...]
    reduces: tuple[ReduceSite, ...]
    weights: frozenset[str]

    def resolve(self, value: str) -> tuple[Axis, ...]:
        """The axes of a value."""
        return tuple(self.space.resolve(dim) for dim in self.axes[value])

    def dim_size(self, dim: int) -> Size:
        """The length of a Dim before anything is removed."""
        return self.space.size(dim)


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
        self.fresh: dict[int, int] = {}
        self.keep_alive: list[Fresh] = []
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
            rules=rules,
            dim_of=self._dim,
            sites=tuple(self._sites(rules, lambda rule: rule.sizes)),
            lengths=tuple(self._sites(rules, lambda rule: rule.lengths)),
            reduces=tuple(
                ReduceSite(k, reduce.ref.index, reduce.ref.axis, reduce.kind, reduce.inside, reduce.zero)
                for k, rule in enumerate(rules)
                for reduce in rule.reduces
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
            stated = traits_of(node).states_lengths  # lengths say nothing about what an activation holds
            if stated or (node.inputs and all(value is None or value.name in self.weights for value in node.inputs)):
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
                implied = unsaid(view, stated) + statistics(view, stated) + unmasked_means(view, stated)
                return self._without_unrelated(index, stated + implied)
            except (Unknown, ValueError, IndexError, TypeError) as reason:
                why = f"{node.op_type} could not be understood: {reason}"
        elif captured:
            why = f"captured by the body of {node.op_type}"
            self._pin_captured(captured, Pin(why, self.labels[index]))
        else:
            domain = f" of domain {node.domain}" if node.domain else ""
            why = f"no axis rule for {node.op_type}{domain}"
        return AxisRule(pins=tuple((ref, why) for axes in (*view.x, *view.y) for ref in axes or ()))

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
                raise ValueError(f"{a} and {b} differ in size")

    def _pin_captured(self, bodies: Iterable[ir.Graph], pin: Pin) -> None:
        for body in bodies:
            for node in body.all_nodes():
                for value in node.inputs:
                    if value is not None and value.name in self.axes and value.graph is not body:
                        self.space.pin_all(self.axes[value.name], pin)
            for value in body.outputs:
                if value.name in self.axes:
                    self.space.pin_all(self.axes[value.name], pin)

    def _view(self, index: int, node: ir.Node) -> NodeView:
        return NodeView(
            op=node.op_type,
            domain=node.domain,
            version=node.version or self.graph.opset_imports.get(node.domain, 0),
            x=tuple(self._refs("x", k, value) for k, value in enumerate(node.inputs)),
            y=tuple(self._refs("y", k, value) for k, value in enumerate(node.outputs)),
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
                if id(expr) not in self.fresh:
                    self.keep_alive.append(expr)
                    self.fresh[id(expr)] = new = self.space.dim(size)
                    if why:
                        self.space.pin(new, Pin(why, self.labels[node]))
                return self.fresh[id(expr)]
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
            except Clash as reason:
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

    def _sites(self, rules: Sequence[AxisRule], which: Callable[[AxisRule], tuple[object, ...]]) -> Iterable[Site]:
        for k, rule in enumerate(rules):
            for site in which(rule):
                yield Site(k, site.place, site.entry, self.space.resolve(self._dim(k, site.states)), site.sign)  # type: ignore[attr-defined]
