"""Which groups may be turned: their Dim is carried whole and linearly from the weights that make it to where it ends.

Everything follows from the analysis.  All places that hold the Dim are linked by what the nodes between them do; the
basis may change if every such node is linear along it, and no place would need two bases at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.solve import Solution
from prunegraph.observe.decompose_attention import FUSED, projects_qkv
from prunegraph.passes.rotate.carry import FLOATS, Bends, Follower, Link, Spot, touching
from prunegraph.passes.rotate.layout import Layout, layouts

KINDS = ("qk_dim", "v_dim")


@dataclass(frozen=True, slots=True)
class Held:
    """One occurrence of a group's Dim in a value.

    Attributes:
        value: Its name.
        layout: Where the units lie; None where that cannot be told (an activation with a length that varies).
        through: Where the value does not hold the units yet, the weight (and bias) that an op makes them with; the
            layout is then that of the whole axis which the weight sums over.
    """

    value: str
    layout: Layout | None
    through: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """A product that sums over the Dim of two activations.

    Attributes:
        left: The activation of the first side.
        right: The other.
        keys: Which of the two a Softmax of the scores goes along, so that a shift of it changes nothing; or None.
        biases: What an op adds to either side before it compares them.
    """

    left: Held
    right: Held
    keys: Held | None = None
    biases: tuple[Held | None, Held | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Part:
    """All that one basis turns: `x T` on one side, `x T⁻ᵀ` on the other.

    Attributes:
        turned: Weights and biases that hold the Dim on the first side: those that make queries, or values.
        mirrored: Those of the other side: they make keys, or read what values have become.
        compared: Products of two activations over the Dim, left on the first side.
        read: Activations that a weight of the other side sums over the Dim.
        orthogonal: Whether `T` has to keep lengths: something divides by the length of all dims together.
    """

    turned: tuple[Held, ...]
    mirrored: tuple[Held, ...]
    compared: tuple[Compared, ...]
    read: tuple[Held, ...]
    orthogonal: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """A group that may be turned."""

    group: Group
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Stays:
    """A group that may not, and why."""

    group: Group
    reason: str


def sites(graph: ir.Graph, analysis: Analysis, groups: Collection[str] | None = None) -> list[Turn | Stays]:
    """What may be said of every group of dims inside of heads, in the order of the graph.

    Args:
        graph: The normalized graph.
        analysis: Its analysis.
        groups: Ids of the groups to look at; all of kinds that may be turned if None.
    """
    chosen_groups = [g for g in analysis.groups if g.kind in KINDS and (groups is None or g.id in groups)]
    if not chosen_groups:
        return []
    follower = Follower(graph, analysis.solution)
    places = touching(graph, analysis.solution)
    return [Finder(analysis.solution, follower, group, places.get(group.dim, [])).site() for group in chosen_groups]


class GroupValues:
    """The values that hold the units of one group, and where these lie in them."""

    def __init__(self, solution: Solution, follower: Follower, group: Group, nodes: Sequence[int]) -> None:
        """Arguments: the solution, what follows its Dims, the group, and the nodes that have to do with it."""
        self.solution, self.follower, self.group, self.nodes = solution, follower, group, nodes
        operands = [value for k in nodes for value in (*follower.nodes[k].inputs, *follower.nodes[k].outputs)]
        self.values = {v.name: v for v in operands if v is not None and follower.spots(v, group.dim)}

    def is_weight(self, spot: Spot) -> bool:
        """Whether a place is one in an initializer; what an op makes inside of itself is in none."""
        return isinstance(spot[0], str) and spot[0] in self.values and self.values[spot[0]].is_initializer()

    def held(self, spot: Spot) -> Held:
        """Where the units lie at one place."""
        value, axis, number = spot
        assert isinstance(value, str)
        on_axis = layouts(self.solution, self.solution.resolve(value), self.group, axis)
        return Held(value, on_axis[number] if on_axis is not None else None)

    def weight(self, spot: Spot) -> Held:
        """Where the units lie in a weight.

        Raises:
            Bends: that cannot be said.
        """
        weight = self.held(spot)
        if weight.layout is None:
            raise Bends(f"its place in {weight.value} is not clear")
        return weight


class Finder(GroupValues):
    """Looks at one group."""

    def site(self) -> Turn | Stays:
        """What may be said of the group."""
        try:
            for value in self.values.values():
                check_door(value)
            links = self._links()
            unmoved = {spot for k in self.nodes for spot in self.follower.unmoved(k, self.group.dim)}
            if any(link.a in unmoved or link.b in unmoved for link in links):
                raise Bends("a gain along it is used for something else, too")
            every = [spot for value in self.values.values() for spot in self.follower.spots(value, self.group.dim)]
            spots = [spot for spot in every if spot not in unmoved]
            parts = tuple(self._part(members, links) for members in components(spots, links))
        except Bends as reason:
            return Stays(self.group, str(reason))
        return Turn(self.group, parts)

    def _links(self) -> list[Link]:
        links: list[Link] = []
        reasons: list[Bends] = []
        for k in self.nodes:
            try:
                links += self.follower.links(k, self.group.dim)
            except Bends as reason:
                reasons.append(reason)
        if reasons:
            raise next((reason for reason in reasons if reason.telling), reasons[0])
        return links

    def _part(self, members: dict[Spot, bool], links: Sequence[Link]) -> Part:
        """What one basis turns; `members` are its places and whether each is of the other side."""
        compared: list[Link] = []
        read: dict[Spot, None] = {}
        for link in links:
            if not link.summed or link.a not in members:
                continue
            constant = [spot[0] in self.solution.weights for spot in (link.a, link.b)]
            if not any(constant) or (all(constant) and projects_qkv(self.follower.nodes[link.node])):
                compared.append(link)
            elif not all(constant):
                read[link.b if constant[0] else link.a] = None
        if bool(compared) == bool(read):
            raise Bends("it is both compared and read by a weight" if read else "nothing sums over it")
        first = [*(link.a for link in compared), *read][0]
        flip = members[first]
        if any(members[spot] != flip for spot in read):
            raise Bends("a weight that makes it reads it, too")
        weights = [spot for spot in members if self.is_weight(spot)]
        by_side = {
            side: tuple(self.weight(s) for s in weights if (members[s] != flip) == side) for side in (False, True)
        }
        if not by_side[False] or not by_side[True]:
            raise Bends("no weight makes it")
        return Part(
            turned=by_side[False],
            mirrored=by_side[True],
            compared=tuple(self.compared(link, members, members[link.a] != flip) for link in compared),
            read=tuple(self.held(spot) for spot in read),
            orthogonal=any(link.orthogonal and link.a in members for link in links),
        )

    def compared(self, link: Link, members: Mapping[Spot, bool], swapped: bool) -> Compared:
        """What a link compares, its second side first where it is swapped."""
        node = self.follower.nodes[link.node]
        if projects_qkv(node):
            q, k = self._made(node, link.a), self._made(node, link.b)
            return Compared(k, q, k) if swapped else Compared(q, k, k)
        a, b = (link.b, link.a) if swapped else (link.a, link.b)
        biases: dict[bool, Held] = {}
        if (node.domain, node.op_type) in FUSED and len(node.inputs) > 3:
            added = [spot for spot in self.follower.spots(node.inputs[3], self.group.dim) if spot in members]
            biases = {members[spot] == members[a]: self.held(spot) for spot in added}
        left, right, keys = self.held(a), self.held(b), self._keys(link)
        along = next((operand for operand in (left, right) if operand.value == keys), None)
        return Compared(left, right, along, (biases.get(True), biases.get(False)))

    def _made(self, node: ir.Node, spot: Spot) -> Held:
        """Units that an op makes inside of itself: what it is given, and the part of its weight and bias."""
        x, weight, bias = (*node.inputs, None)[:3]
        assert x is not None and weight is not None and weight.shape is not None
        number = self.follower.spots(weight, self.group.dim).index(spot)
        biased = self.follower.spots(bias, self.group.dim)
        through = (self.held(spot), *(self.held(each) for each in biased[number : number + 1]))
        rows = np.arange(int(weight.shape.numpy()[0]))[None]
        return Held(x.name or "", Layout(2, rows, (), ()), through)

    def _keys(self, link: Link) -> str:
        """Which operand is compared along the axis that a Softmax of the scores goes along."""
        node = self.follower.nodes[link.node]
        if (node.domain, node.op_type) in FUSED:
            return str(link.b[0])
        along = _softened(node)
        if along is None:
            return ""
        operands = {operand.value: operand for operand in self.solution.contracted[link.node][0].operands}
        output = self.solution.axes[node.outputs[0].name or ""]
        dim = self.solution.space.find(output[along])
        for spot in (link.a, link.b):
            value = str(spot[0])
            axes = self.solution.axes[value]
            if any(self.solution.space.find(axes[axis]) == dim for axis in operands[value].free):
                return value
        return ""


def check_door(value: ir.Value) -> None:
    """What holds the Dim is no door of the graph, and no weight with integers.

    Raises:
        Bends: it is.
    """
    if value.is_graph_input() or value.is_graph_output():
        raise Bends(f"the graph {'input' if value.is_graph_input() else 'output'} {value.name} holds it")
    if value.is_initializer() and (value.dtype not in FLOATS or value.const_value is None):
        raise Bends(f"the weight {value.name} is quantized")


def _softened(node: ir.Node) -> int | None:
    """Along which axis of the scores that a node makes a Softmax goes, as far as elementwise ops lead to one."""
    waiting, passed = [node.outputs[0]], set[str | None]()
    while waiting and len(passed) < 50:
        value = waiting.pop(0)
        for user, _ in value.uses():
            if user.op_type == "Softmax" and user.inputs[0] is value:
                return user.attributes.get_int("axis", -1)
            if user.op_type in ("Add", "Mul", "Div", "Sub", "Where", "Cast", "Identity"):
                if user.outputs[0].name not in passed:
                    passed.add(user.outputs[0].name)
                    waiting.append(user.outputs[0])
    return None


def components(spots: Iterable[Spot], links: Iterable[Link]) -> list[dict[Spot, bool]]:
    """Places that hang together, and whether each is mirrored against the first of them.

    Raises:
        Bends: a place would have to be turned in two ways.
    """
    beside: dict[Spot, list[tuple[Spot, bool]]] = defaultdict(list)
    for link in links:
        beside[link.a].append((link.b, link.mirrored))
        beside[link.b].append((link.a, link.mirrored))
    sides: dict[Spot, bool] = {}
    components = []
    for start in spots:
        if start in sides:
            continue
        sides[start] = False
        members, waiting = {start: False}, [start]
        while waiting:
            spot = waiting.pop()
            for other, mirrored in beside[spot]:
                side = sides[spot] != mirrored
                if other not in sides:
                    sides[other] = members[other] = side
                    waiting.append(other)
                elif sides[other] != side:
                    raise Bends("one weight makes both sides of a product over it")
        components.append(members)
    return components
