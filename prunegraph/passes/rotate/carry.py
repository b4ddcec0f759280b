"""What a node does to a Dim that its operands hold: it carries the Dim as it is, mirrors it, or bends it.

Under a change of basis some operands of a node hold `x T`, others `x T⁻ᵀ`.  A node that carries the Dim linearly makes
`x T` of `x T`; a product that sums over it needs one operand of either kind.  Whatever does anything else bends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Expr, Fresh, Prod, Ref
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.read_weight import read_weight
from prunegraph.analysis.relations import AxisRule
from prunegraph.analysis.solve import Solution
from prunegraph.observe.decompose_attention import FUSED, projects_qkv
from prunegraph.passes.rotate.layout import count_occurrences

Spot = tuple[str | int, int, int]
"""One occurrence of the Dim: a value (or an axis that only a node knows of), its axis, and which term of that."""

FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))


@dataclass(frozen=True, slots=True)
class Link:
    """Two occurrences of a Dim that must be turned alike, or one by the inverse of the other.

    Attributes:
        a: One of them.
        b: The other.
        mirrored: Whether it is the inverse.
        summed: Whether a product sums over the Dim here.
        node: The position of the node.
        orthogonal: Whether only a basis that keeps lengths may be changed to: the node divides by the length.
    """

    a: Spot
    b: Spot
    mirrored: bool
    summed: bool
    node: int
    orthogonal: bool = False


class Bends(Exception):
    """A node does something to the Dim that no change of basis commutes with.

    `telling` says that it is where two things meet, and not where one of them (a table of cosines) is prepared.
    """

    def __init__(self, why: str, *, telling: bool = False) -> None:
        """Keep why the basis may not change."""
        super().__init__(why)
        self.telling = telling


class Follower:
    """How the nodes of one graph carry Dims."""

    def __init__(self, graph: ir.Graph, solution: Solution) -> None:
        self.graph, self.solution = graph, solution
        self.nodes = list(graph)

    def links(self, k: int, dim: int) -> list[Link]:
        """What the node at position `k` says of a Dim that its operands hold.

        Raises:
            Bends: it is not linear along it, with the reason.
        """
        node, rule = self.nodes[k], self.solution.rules[k]
        name = node.name or node.op_type
        traits = traits_of(node)
        if (node.domain, node.op_type) in FUSED:
            return self._fused(k, node, rule, dim)
        if traits.states_lengths:
            return []
        if _divides_by_length(node):
            return list(self._normalized(k, rule, dim))
        if traits.length and not self.spots(node.outputs[0], dim):
            return [Link(spot, spot, False, False, k, orthogonal=True) for spot in self.spots(node.inputs[0], dim)]
        product = traits.contracts and traits.linear
        if self._reduced(k, rule, dim) and not product:
            raise Bends(f"{name} ({node.op_type}) weighs its slots against each other, or sums them")
        if any(dim in self._leaves(k, expr) for expr in rule.copies):
            raise Bends(f"{name} ({node.op_type}) copies it")
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) not in FLOATS:
            raise Bends(f"{name} (Cast) makes integers of it")
        if traits.moves or _pads_zeros(node):
            return list(self._equal(k, rule, dim, []))
        if traits.mixes:
            self._all_hold(node, dim, traits.mixes)
            return list(self._equal(k, rule, dim, []))
        if traits.multiplies:
            self._one_holds(node, dim)
            still = self.unmoved(k, dim)
            return [link for link in self._equal(k, rule, dim, []) if link.a not in still and link.b not in still]
        if product:
            return self._product(k, node, rule, dim)
        raise Bends(f"{name} ({node.op_type}) is not linear along it")

    def unmoved(self, k: int, dim: int) -> list[Spot]:
        """Gains of the node at position `k` that are one number all along: they are the same in every basis."""
        node = self.nodes[k]
        if not _divides_by_length(node) and not traits_of(node).multiplies:
            return []
        return [spot for value in node.inputs if is_one_number(value) for spot in self.spots(value, dim)]

    def spots(self, value: ir.Value | None, dim: int) -> list[Spot]:
        """Every occurrence of a Dim in a value, in order."""
        name = value.name if value is not None else None
        if name is None or name not in self.solution.axes:
            return []
        axes = self.solution.resolve(name)
        return [(name, a, n) for a, axis in enumerate(axes) for n in range(count_occurrences(axis, dim))]

    def _leaves(self, k: int, expr: Expr) -> frozenset[int]:
        return self.solution.leaves_of(k, [expr])

    def _reduced(self, k: int, rule: AxisRule, dim: int) -> bool:
        return any(dim in self._leaves(k, reduce.ref) for reduce in rule.reduces)

    def _spots_of(self, k: int, expr: Expr, dim: int) -> list[Spot]:
        """Occurrences that an expression mentions, in order."""
        match expr:
            case Ref():
                value = (self.nodes[k].inputs if expr.side == "x" else self.nodes[k].outputs)[expr.index]
                assert value is not None
                return [spot for spot in self.spots(value, dim) if spot[1] == expr.axis]
            case Fresh():
                axis: Axis = self.solution.space.resolve(self.solution.fresh[expr])
                return [(id(expr), 0, n) for n in range(count_occurrences(axis, dim))]
        parts = expr.factors if isinstance(expr, Prod) else expr.terms
        return [spot for part in parts for spot in self._spots_of(k, part, dim)]

    def _equal(self, k: int, rule: AxisRule, dim: int, operands: Sequence[int]) -> Iterator[Link]:
        """Equal expressions hold the same slots in the same order; those of two factors of a product are mirrored."""
        for a, b in rule.equal:
            left, right = self._spots_of(k, a, dim), self._spots_of(k, b, dim)
            if len(left) != len(right):
                raise Bends(f"{self.nodes[k].name or self.nodes[k].op_type} takes it apart")
            both = all(isinstance(e, Ref) and e.side == "x" and e.index in operands for e in (a, b))
            yield from (Link(p, q, both, both, k) for p, q in zip(left, right, strict=True))

    def _normalized(self, k: int, rule: AxisRule, dim: int) -> Iterator[Link]:
        """A norm divides by the root of the mean square, which a basis that keeps lengths leaves alone."""
        node = self.nodes[k]
        if not self._reduced(k, rule, dim):
            raise Bends(f"{node.name or node.op_type} ({node.op_type}) divides every slot of it by another number")
        for gain in node.inputs[1:]:
            if self.spots(gain, dim) and not is_one_number(gain):
                raise Bends(
                    f"{node.name or node.op_type} ({node.op_type}) scales it by something that varies along it",
                    telling=True,
                )
        still = self.unmoved(k, dim)
        for link in self._equal(k, rule, dim, []):
            if link.a not in still and link.b not in still:
                yield replace(link, orthogonal=True)

    def _all_hold(self, node: ir.Node, dim: int, inputs: Collection[int]) -> None:
        want = len(self.spots(node.outputs[0], dim))
        for k, value in enumerate(node.inputs):
            if value is None or len(self.spots(value, dim)) == (want if k in inputs else 0):
                continue
            if k in inputs and want and _is_zero(value):
                continue
            raise Bends(f"{node.name or node.op_type} ({node.op_type}) brings in something that is not held along it")

    def _one_holds(self, node: ir.Node, dim: int) -> None:
        holding = [k for k, value in enumerate(node.inputs) if self.spots(value, dim) and not is_one_number(value)]
        if len(holding) != 1 or (node.op_type == "Div" and holding != [0]):
            raise Bends(
                f"{node.name or node.op_type} ({node.op_type}) scales it by something that varies along it",
                telling=True,
            )

    def _product(self, k: int, node: ir.Node, rule: AxisRule, dim: int) -> list[Link]:
        name = node.name or node.op_type
        if len(rule.contractions) != 1:
            raise Bends(f"{name} ({node.op_type}) multiplies more than two operands")
        operands = rule.contractions[0].operands
        holding = [index for index in operands if self.spots(node.inputs[index], dim)]
        in_output = bool(self.spots(node.outputs[0], dim))
        if len(holding) + in_output != 2:
            raise Bends(f"{name} ({node.op_type}) takes one product for every slot of it")
        bias = node.inputs[2] if node.op_type != "Einsum" and len(node.inputs) > 2 else None
        if in_output and bias is not None and not self.spots(bias, dim) and not _is_zero(bias):
            raise Bends(f"{name} ({node.op_type}) brings in something that is not held along it")
        if not in_output and self.spots(bias, dim):
            raise Bends(f"{name} ({node.op_type}) adds it to what does not hold it")
        links = list(self._equal(k, rule, dim, operands))
        if any(node.attributes.get(each) is not None for each in ("activation", "auto_activation")):
            raise Bends(f"{name} ({node.op_type}) applies an activation function")
        return links

    def _fused(self, k: int, node: ir.Node, rule: AxisRule, dim: int) -> list[Link]:
        """Attention in one op: queries mirror keys, what comes out is like the values; a bias has a part for each."""
        name = node.name or node.op_type
        if node.attributes.get_int("do_rotary", 0):
            raise Bends(f"{name} ({node.op_type}) rotates it by position")
        contractions = rule.contractions
        if len(contractions) < 2 or contractions[-2].operands[0] != contractions[-1].operands[0]:
            raise Bends(f"{name} ({node.op_type}) could not be understood")
        scores, mixed = contractions[-2:]
        sides = {"q": scores.operands[0], "k": scores.operands[1], "v": mixed.operands[1]}
        summed = any(dim in self._leaves(k, expr) for expr in scores.summed)
        carried = any(dim in self._leaves(k, expr) for expr in (*mixed.left, *mixed.right))
        uses = [*(("q", "k") if summed else ()), *(("v",) if carried else ())]
        if projects_qkv(node):
            (weight, bias), operands = (*node.inputs, None)[1:3], {}
        else:
            if len(set(sides.values())) < 3:
                raise Bends(f"{name} ({node.op_type}) is given queries, keys and values in one")
            weight, operands = None, {side: node.inputs[index] for side, index in sides.items()}
            bias = node.inputs[3] if node.op_type == "MultiHeadAttention" and len(node.inputs) > 3 else None
        spots: dict[str, list[Spot]] = {side: self.spots(operands.get(side), dim) for side in uses}
        for packed in (weight, bias):
            parts = self.spots(packed, dim)
            if parts and len(parts) != len(uses):
                raise Bends(f"{name} ({node.op_type}) could not be understood")
            for side, spot in zip(uses, parts, strict=False):
                spots[side].append(spot)
        known = {spot for each in spots.values() for spot in each} | set(self.spots(node.outputs[0], dim))
        for value in (*node.inputs, *node.outputs):
            if not known.issuperset(self.spots(value, dim)):
                raise Bends(f"{name} ({node.op_type}) keeps it in a cache")
        spots["y"] = self.spots(node.outputs[0], dim)
        links = [Link(each[0], spot, False, False, k) for each in spots.values() if each for spot in each[1:]]
        for a, b, mirrored in (("q", "k", True), ("v", "y", False)):
            if spots.get(a) and spots.get(b):
                links.append(Link(spots[a][0], spots[b][0], mirrored, mirrored, k))
        return links


def _pads_zeros(node: ir.Node) -> bool:
    """Whether it is a Pad that puts zeros around whatever it is given."""
    if node.op_type != "Pad" or node.domain not in ("", "ai.onnx"):
        return False
    value = node.inputs[2] if len(node.inputs) > 2 else None
    stated = node.attributes.get_float("value", 0.0) == 0
    return (
        node.attributes.get_string("mode", "constant") == "constant" and stated and (value is None or _is_zero(value))
    )


def _divides_by_length(node: ir.Node) -> bool:
    """Whether it divides by the root of the mean square over its last axes, and scales after that."""
    norm = traits_of(node).norm
    return norm is not None and not (norm.centred or norm.by_channel) and norm.sum_output is None


def is_one_number(value: ir.Value | None) -> bool:
    """Whether a weight holds the same number everywhere."""
    if value is None or value.const_value is None:
        return False
    array = read_weight(value.const_value)
    return bool(array.size and (array == array.flat[0]).all())


def _is_zero(value: ir.Value) -> bool:
    return value.const_value is not None and not read_weight(value.const_value).any()


def touching(graph: ir.Graph, solution: Solution) -> Mapping[int, list[int]]:
    """By leaf, the positions of all nodes that have an operand which holds it."""
    nodes_by_leaf: dict[int, list[int]] = {}
    for k, node in enumerate(graph):
        names = {value.name or "" for value in (*node.inputs, *node.outputs) if value is not None}
        dims = {dim for name in names for dim in solution.axes.get(name, ())}
        for leaf in {leaf for dim in dims for leaf in solution.space.leaves(dim)}:
            nodes_by_leaf.setdefault(leaf, []).append(k)
    return nodes_by_leaf
