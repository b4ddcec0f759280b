"""Cut a graph into blocks that run one after the other, each with its own weights, where little crosses.

What crosses a position between two nodes are the values that are made before it and read behind it: in a residual
network the stream alone, at the sums.  What is made of constants alone never crosses: every block that reads it makes
it again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of

BYTES_A_BLOCK = 1 << 26
"""Weights of so many bytes make a block, about; one that is larger has a block of its own."""

LENGTH = 64
"""How long an axis is taken to be whose length nobody states, to compare what crosses here and there."""

_UNKNOWN = 1 << 16
"""How large a value is taken to be of which nothing is known."""

CARRIED = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL, ir.DataType.STRING),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)
"""Types that ONNX Runtime takes from Python and gives to it."""


@dataclass(frozen=True, slots=True)
class GraphBlock:
    """A piece of a graph.

    Attributes:
        nodes: What it computes, in order; what is made of constants alone may stand in several blocks.
        weights: Names of the initializers that it reads.
        reads: Names of what it is given: inputs of the graph and values that earlier blocks made.
        makes: Names of what it gives: values that later blocks read, and outputs.
    """

    nodes: tuple[ir.Node, ...]
    weights: tuple[str, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]


def cut(graph: ir.Graph, outputs: Collection[str], most: int = BYTES_A_BLOCK) -> tuple[GraphBlock, ...]:
    """Blocks that compute some values of a graph, one after the other; one block where it cannot be cut.

    Args:
        graph: What is cut.
        outputs: Names of values that nodes of it make; nodes that none of them needs are in no block.
        most: How many bytes of weights a block holds at most, where the graph allows that.
    """
    wiring = _Wiring.of(graph, outputs)
    if wiring is None:
        return (_whole(graph, outputs),)
    ends = [*_ends(wiring, most), len(wiring.order)]
    ranges = list(zip([0, *ends], ends, strict=False))
    return tuple(_blocks(wiring, ranges, outputs))


def _whole(graph: ir.Graph, outputs: Collection[str]) -> GraphBlock:
    inputs = tuple(value.name or "" for value in graph.inputs)
    return GraphBlock(tuple(graph), tuple(graph.initializers), inputs, tuple(outputs))


# ---- what reads what -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wiring:
    """A graph as it is cut.

    Attributes:
        graph: The graph.
        order: The nodes that are needed and hang on inputs.
        reads: By node all values of the graph that it reads, in its bodies too.
        constant: The nodes that are made of constants alone, with their place in the graph.
        needed: Values that are put out.
    """

    graph: ir.Graph
    order: list[ir.Node]
    reads: dict[ir.Node, list[ir.Value]]
    constant: dict[ir.Node, int]
    needed: set[ir.Value]
    place: dict[ir.Node, int] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ir.Graph, outputs: Collection[str]) -> _Wiring | None:
        """None where the nodes are in no order, so that a position in it means nothing."""
        nodes = list(graph)
        place = {node: k for k, node in enumerate(nodes)}
        there = {value for node in nodes for value in node.outputs}
        outer = {*graph.inputs, *graph.initializers.values(), *there}
        reads = {node: [value for value in dict.fromkeys(values_read_by(node)) if value in outer] for node in nodes}
        makers = {node: [maker for value in reads[node] if (maker := _maker(value, there))] for node in nodes}
        if any(place[maker] >= k for k, node in enumerate(nodes) for maker in makers[node]):
            return None
        needed_values = {value for value in there if value.name in set(outputs)}
        needed_nodes: set[ir.Node] = set()
        waiting = [node for node in nodes if needed_values & set(node.outputs)]
        while waiting:
            node = waiting.pop()
            if node not in needed_nodes:
                needed_nodes.add(node)
                waiting += makers[node]
        constant: dict[ir.Node, int] = {}
        graph_inputs = set(graph.inputs)
        for node in nodes:
            if (
                _repeats(node)
                and not graph_inputs & set(reads[node])
                and all(maker in constant for maker in makers[node])
            ):
                constant[node] = place[node]
        order = [node for node in nodes if node in needed_nodes and node not in constant]
        return cls(graph, order, reads, constant, needed_values, place)

    def with_constants(self, nodes: Sequence[ir.Node]) -> list[ir.Node]:
        """Nodes, and those before them that are made of constants alone, in the order of the graph."""
        chosen, waiting = set(nodes), list(nodes)
        while waiting:
            for value in self.reads[waiting.pop()]:
                maker = value.producer()
                if maker in self.constant and maker not in chosen:
                    chosen.add(maker)
                    waiting.append(maker)
        return sorted(chosen, key=self.place.__getitem__)

    def weights(self, nodes: Sequence[ir.Node]) -> dict[str, ir.Value]:
        """The initializers that nodes read, by name."""
        values = (value for node in nodes for value in self.reads[node])
        return {value.name or "": value for value in values if value.is_initializer()}


def _maker(value: ir.Value, there: Collection[ir.Value]) -> ir.Node | None:
    return value.producer() if value in there else None


def values_read_by(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, in its bodies too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies = list(attribute.as_graphs())
        else:
            continue
        for body in bodies:
            yield from body.outputs
            for inner in body:
                yield from values_read_by(inner)


def _repeats(node: ir.Node) -> bool:
    """Whether a node makes the same as often as it runs, and has no body that says more."""
    bodies = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    known = node.domain in ("", "ai.onnx", "com.microsoft")
    return known and not traits_of(node).random and all(a.type not in bodies for a in node.attributes.values())


# ---- where to cut ----------------------------------------------------------------------------------------------------


def _ends(wiring: _Wiring, most: int) -> Iterator[int]:
    """The positions of cuts: as far apart as weights allow, there where least crosses."""
    crossing = _crossing(wiring)
    start = 0
    while start < len(wiring.order):
        first, last = _reach(wiring, start, most)
        if last >= len(wiring.order):
            return
        start = min(range(first, last + 1), key=lambda position: (crossing[position], -position))
        if math.isinf(crossing[start]):
            open_positions = (k for k in range(last + 1, len(wiring.order)) if not math.isinf(crossing[k]))
            start = next(open_positions, len(wiring.order))
            if start == len(wiring.order):
                return
        yield start


def _reach(wiring: _Wiring, start: int, most: int) -> tuple[int, int]:
    """The first and the last position at which a block that starts here may end: half full, and full."""
    weights: set[str] = set()
    total, half = 0, 0
    for position in range(start, len(wiring.order)):
        for name, value in wiring.weights(wiring.with_constants([wiring.order[position]])).items():
            if name not in weights and value.const_value is not None:
                weights.add(name)
                total += value.const_value.nbytes
        if total > most and position > start:
            return half or position, position
        if 2 * total >= most and not half:
            half = position + 1
    return half, len(wiring.order)


def _crossing(wiring: _Wiring) -> list[float]:
    """By position between nodes, how many bytes cross there, about; infinite where something crosses that cannot."""
    ends: dict[ir.Value, int] = {}
    for position, node in enumerate(wiring.order):
        for value in wiring.reads[node]:
            ends[value] = position
    sizes = _sizes(wiring)
    steps = [0.0] * (len(wiring.order) + 1)
    walls = [0.0] * (len(wiring.order) + 1)
    for position, node in enumerate(wiring.order):
        for value in node.outputs:
            if (end := ends.get(value, position)) > position:
                line, amount = (steps, sizes[value]) if _can_cross(value) else (walls, 1.0)
                line[position + 1] += amount
                line[end + 1] -= amount
    crossing, total, blocked = [], 0.0, 0.0
    for step, wall in zip(steps, walls, strict=True):
        total, blocked = total + step, blocked + wall
        crossing.append(math.inf if blocked else total)
    return crossing


def _can_cross(value: ir.Value) -> bool:
    """Whether a value can be handed on as an array, as far as that is known."""
    maker = value.producer()
    if isinstance(value.type, ir.SequenceType | ir.OptionalType) or (maker is not None and traits_of(maker).sequences):
        return False
    return value.dtype is None or value.dtype in CARRIED


def _sizes(wiring: _Wiring) -> dict[ir.Value, float]:
    """How large values are, about: by their shape, or as the largest that they are made of."""
    sizes = {value: _stated(value) or _UNKNOWN for value in wiring.graph.inputs}
    for node in wiring.order:
        operands = [sizes[value] for value in wiring.reads[node] if value in sizes]
        for value in node.outputs:
            sizes[value] = _stated(value) or max(operands, default=_UNKNOWN)
    return sizes


def _stated(value: ir.Value) -> float | None:
    if value.shape is None:
        return None
    return 4.0 * math.prod(dim if isinstance(dim, int) and dim >= 0 else LENGTH for dim in value.shape)


def _blocks(wiring: _Wiring, ranges: Sequence[tuple[int, int]], outputs: Collection[str]) -> Iterator[GraphBlock]:
    last_read: dict[ir.Value, int] = {}
    for k, (start, end) in enumerate(ranges):
        for node in wiring.order[start:end]:
            last_read |= dict.fromkeys(wiring.reads[node], k)
    constants = [node for node in wiring.constant if wiring.needed & set(node.outputs)]
    for k, (start, end) in enumerate(ranges):
        last = k == len(ranges) - 1
        nodes = wiring.with_constants([*wiring.order[start:end], *(constants if last else ())])
        inside = {value for node in nodes for value in node.outputs}
        values = dict.fromkeys(value for node in nodes for value in wiring.reads[node] if value not in inside)
        graph_inputs = set(wiring.graph.inputs)
        makes = [
            value
            for node in nodes
            for value in node.outputs
            if (node in wiring.constant and last and value in wiring.needed)
            or (node not in wiring.constant and (value in wiring.needed or last_read.get(value, k) > k))
        ]
        yield GraphBlock(
            nodes=tuple(nodes),
            weights=tuple(wiring.weights(nodes)),
            reads=tuple(v.name or "" for v in values if v in graph_inputs or not v.is_initializer()),
            makes=tuple(value.name or "" for value in makes),
        )
