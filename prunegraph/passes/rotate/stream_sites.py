"""Which residual streams may be turned: all that reads them for good reads a norm, and no norm is a part of the stream.

What holds the width falls into parts that hang together through everything but norms.  A norm leads from one part, the
stream, to another, which may hold nothing but what reads the norm: its gain and offset then go into these weights, and
what is left of the norm divides by a length, which a basis that keeps lengths and means leaves alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.read_weight import read_weight
from prunegraph.analysis.solve import Solution
from prunegraph.passes.repair.write import own_bias
from prunegraph.passes.rotate.carry import FLOATS, Bends, Follower, Link, Spot, is_one_number, touching
from prunegraph.passes.rotate.sites import GroupValues, Held, Stays, check_door, components

KIND = "hidden"

LARGEST_OFFSET = 64.0
"""So many times as large as the gain an offset may be that stays in its norm: beside it stand numbers of size one."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A weight that sums over a norm of the stream, and the bias that takes the offset of the norm; "" where none does.

    A tied one writes to the stream, too: it turns with the writers.
    """

    held: Held
    bias: str
    tied: bool = False


@dataclass(frozen=True, slots=True)
class StreamNorm:
    """A norm of the stream.

    Attributes:
        x: What it normalizes.
        gain: Its gain, an initializer of its own; empty where it has none.
        offset: Its offset; likewise.
        readers: All that its output reaches.
        keeps_gain: Whether its gain, one number, stays: a tied reader cannot take it.
        keeps_offset: Whether its offset stays, turned: a reader has no bias to take it.
    """

    x: str
    gain: str
    offset: str
    readers: tuple[Reader, ...]
    keeps_gain: bool = False
    keeps_offset: bool = False


@dataclass(frozen=True, slots=True)
class StreamTurn:
    """A stream that may be turned.

    Attributes:
        group: The group of its width.
        written: Weights, biases and tables that write to it.
        norms: Its norms, in order.
        centred: Whether they take means off.
    """

    group: Group
    written: tuple[Held, ...]
    norms: tuple[StreamNorm, ...]
    centred: bool


def stream_sites(
    graph: ir.Graph, analysis: Analysis, groups: Collection[str] | None = None
) -> list[StreamTurn | Stays]:
    """What may be said of every width that norms read, in the order of the graph; arguments as for `sites`."""
    widths = [g for g in analysis.groups if g.kind == KIND and (groups is None or g.id in groups)]
    if not widths:
        return []
    follower = Follower(graph, analysis.solution)
    places = touching(graph, analysis.solution)
    finders = [_Finder(analysis.solution, follower, group, places.get(group.dim, [])) for group in widths]
    return [finder.site() for finder in finders if finder.has_norms]


@dataclass(frozen=True, slots=True)
class _Norm:
    node: ir.Node
    x: Spot
    y: Spot
    gain: ir.Value | None
    offset: ir.Value | None
    centred: bool


class _Finder(GroupValues):
    """Looks at one group.

    Attributes:
        uses: By place in a weight, one place a node that reads it: they need not all stand on one side.
        whole: The other way round.
    """

    def __init__(self, solution: Solution, follower: Follower, group: Group, nodes: Sequence[int]) -> None:
        """Arguments as for all groups."""
        super().__init__(solution, follower, group, nodes)
        self.uses: dict[Spot, list[Spot]] = {}
        self.whole: dict[Spot, Spot] = {}

    @property
    def has_norms(self) -> bool:
        """Whether a norm is among its nodes."""
        return any(_is_norm(self.follower.nodes[k]) for k in self.nodes)

    def site(self) -> StreamTurn | Stays:
        try:
            return self._turn()
        except Bends as reason:
            return Stays(self.group, str(reason))

    def _turn(self) -> StreamTurn:
        if self.group.outer:
            raise Bends("its choice differs from row to row")
        for value in self.values.values():
            check_door(value)
        norms = [self._norm(self.follower.nodes[k]) for k in self.nodes if _is_norm(self.follower.nodes[k])]
        if len({norm.centred for norm in norms}) > 1:
            raise Bends("some norms take the mean off, others do not")
        links = self._apart([link for k in self.nodes for link in self._links(k)])
        if any(link.orthogonal for link in links):
            raise Bends("its length is taken apart from its norms")
        parameters = {value.name for norm in norms for value in (norm.gain, norm.offset) if value is not None}
        held = [value for name, value in self.values.items() if name not in parameters]
        spots = [spot for value in held for spot in self.follower.spots(value, self.group.dim)]
        every = [use for spot in spots for use in self.uses.get(spot, (spot,))]
        parts = components(every, links)
        of = {spot: k for k, part in enumerate(parts) for spot in part}
        streams = {of[norm.x] for norm in norms}
        for norm in norms:
            if of[norm.y] in streams:
                raise Bends(f"{_title(norm.node)} is a part of the stream, as in a post-norm model")
        if len(streams) > 1:
            raise Bends(f"{_title(norms[-1].node)} normalizes something else than the other norms do")
        (stream,) = streams
        readers = [self._read_by(norm, parts[of[norm.y]], parts[stream], norms, links) for norm in norms]
        if set(of.values()) != streams | {of[norm.y] for norm in norms}:
            raise Bends("something of this width is no part of the stream, nor reads a norm of it")
        writers = [spot for spot in parts[stream] if self.is_weight(spot)]
        flip = parts[stream][norms[0].x]
        if any(parts[stream][spot] != flip for spot in (*writers, *(norm.x for norm in norms))):
            raise Bends("a weight reads the stream without a norm")
        written = tuple(map(self.weight, dict.fromkeys(map(self._whole_spot, writers))))
        return StreamTurn(self.group, written, tuple(readers), norms[0].centred)

    def _apart(self, links: Sequence[Link]) -> list[Link]:
        """The links, with a place of its own for every node that reads a weight."""
        nodes: dict[Spot, dict[int, None]] = {}
        for link in links:
            for spot in (link.a, link.b):
                if self.is_weight(spot):
                    nodes.setdefault(spot, {})[link.node] = None

        def at(spot: Spot, node: int) -> Spot:
            if len(nodes.get(spot, ())) < 2:
                return spot
            use = (f"{spot[0]}@{node}", *spot[1:])
            self.whole[use] = spot
            return use

        self.uses.update({spot: [at(spot, node) for node in by_node] for spot, by_node in nodes.items()})
        return [replace(link, a=at(link.a, link.node), b=at(link.b, link.node)) for link in links]

    def _whole_spot(self, spot: Spot) -> Spot:
        return self.whole.get(spot, spot)

    def is_weight(self, spot: Spot) -> bool:
        """As that of all groups, also of one node's place in a weight."""
        return super().is_weight(self._whole_spot(spot))

    def _links(self, k: int) -> list[Link]:
        return [] if _is_norm(self.follower.nodes[k]) else self.follower.links(k, self.group.dim)

    def _norm(self, node: ir.Node) -> _Norm:
        """A norm over the whole stream and nothing else.

        Raises:
            Bends: it is over something else, or its parameters are not its own.
        """
        norm = traits_of(node).norm
        assert norm is not None and node.inputs[0] is not None
        name, dim = _title(node), self.group.dim
        x, y = (self.follower.spots(value, dim) for value in (node.inputs[0], node.outputs[0]))
        axes = self.solution.resolve(node.inputs[0].name or "")
        last = len(axes) - 1
        plain = len(x) == len(y) == 1 and x[0][1] == y[0][1] == last and axes[last].terms == ((dim,),)
        axis = node.attributes.get_int("axis", -1)
        if norm.by_channel or norm.sum_output is not None or not plain or axis not in (-1, last):
            raise Bends(f"{name} is no norm over its width alone")
        gain = node.inputs[norm.scale] if len(node.inputs) > norm.scale else None
        offset = node.inputs[norm.scale + 1] if norm.centred and len(node.inputs) > norm.scale + 1 else None
        for value in (gain, offset):
            if value is not None and (not value.is_initializer() or len(list(value.uses())) > 1):
                raise Bends(f"{name} has a gain or an offset that others use, too")
        return _Norm(node, x[0], y[0], gain, offset, norm.centred)

    def _read_by(
        self,
        norm: _Norm,
        part: Mapping[Spot, bool],
        stream: Mapping[Spot, bool],
        norms: Sequence[_Norm],
        links: Sequence[Link],
    ) -> StreamNorm:
        """What the output of a norm reaches: weights that sum over it, and nothing else.

        Raises:
            Bends: it reaches something else.
        """
        name = _title(norm.node)
        if any(other is not norm and other.y in part for other in norms):
            raise Bends(f"what {name} makes is joined with what another norm makes")
        weights = [spot for spot in part if self.is_weight(spot)]
        if any(part[spot] == part[norm.y] for spot in weights):
            raise Bends(f"something is added to what {name} makes")
        sums = [link for link in links if link.summed and (link.a in part or link.b in part)]
        if len(sums) != len(weights):
            raise Bends(f"what {name} makes is compared with itself")
        written = {self._whole_spot(spot) for spot in stream}
        readers = [self._reader(spot, part, norm, links, tied=self._whole_spot(spot) in written) for spot in weights]
        tied = [reader.held.value for reader in readers if reader.tied]
        if tied and norm.gain is not None and not is_one_number(norm.gain):
            raise Bends(f"{tied[0]} writes to the stream and reads {name}, whose gain it cannot take: it varies")
        no_bias = [reader.held.value for reader in readers if not reader.bias]
        keeps_offset = norm.offset is not None and bool(no_bias)
        if keeps_offset and not tied and _is_larger(norm.offset, norm.gain):
            raise Bends(f"{no_bias[0]} has no bias to take the offset of {name}, where its gain is next to nothing")
        if keeps_offset:
            readers = [replace(reader, bias="") for reader in readers]
        gain, offset = (value.name or "" if value is not None else "" for value in (norm.gain, norm.offset))
        return StreamNorm(str(norm.x[0]), gain, offset, tuple(readers), bool(tied), keeps_offset)

    def _reader(
        self, spot: Spot, part: Mapping[Spot, bool], norm: _Norm, links: Sequence[Link], *, tied: bool
    ) -> Reader:
        """A weight that sums over what a norm makes.

        Raises:
            Bends: it has other uses than that, or that and writing to the stream.
        """
        whole = self._whole_spot(spot)
        weight = self.values[str(whole[0])]
        uses = [use for use in self.uses.get(whole, [whole]) if use in part]
        if len(uses) > 1 or (not tied and len(list(weight.uses())) != 1):
            raise Bends(f"the weight {weight.name} has other uses, too")
        nodes = [link.node for link in links if link.summed and spot in (link.a, link.b)]
        bias = self._bias(weight, nodes[0], whole[1]) if norm.offset is not None and len(nodes) == 1 else ""
        return Reader(self.weight(whole), bias, tied)

    def _bias(self, weight: ir.Value, k: int, axis: int) -> str:
        """The bias that the offset of a norm goes into; "" where there is none that is added to the product alone."""
        node, shape = self.follower.nodes[k], weight.shape
        plain = node.op_type == "MatMul" or (
            node.op_type == "Gemm"
            and node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0
        )
        if node.inputs[1] is not weight or not plain or shape is None or len(shape) != 2:
            return ""
        bias = own_bias(node, int(shape.numpy()[1 - axis]))
        return "" if bias is None or len(list(bias.uses())) != 1 or bias.dtype not in FLOATS else bias.name or ""


def _is_larger(offset: ir.Value | None, gain: ir.Value | None) -> bool:
    """Whether an offset is too large beside the gain that it would have to be divided by."""
    tensors = [value.const_value for value in (offset, gain) if value is not None]
    sizes = [np.abs(read_weight(tensor).astype(np.float64)) for tensor in tensors if tensor is not None]
    return len(sizes) == 2 and bool((sizes[0] > LARGEST_OFFSET * sizes[1]).any())


def _is_norm(node: ir.Node) -> bool:
    return traits_of(node).norm is not None


def _title(node: ir.Node) -> str:
    return f"{node.name or node.op_type} ({node.op_type})"
