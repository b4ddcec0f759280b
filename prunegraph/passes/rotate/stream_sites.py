"""Which residual streams may be turned: all that reads them for good reads a norm, and no norm is a part of the stream.

What holds the width falls into parts that hang together through everything but norms.  A norm leads from one part, the
stream, to another, which may hold nothing but what reads the norm: its gain and offset then go into these weights, and
what is left of the norm divides by a length, which a basis that keeps lengths and means leaves alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.ops import traits_of
from prunegraph.passes.repair.write import own_bias
from prunegraph.passes.rotate.carry import FLOATS, Bends, Follower, Link, Spot, touching
from prunegraph.passes.rotate.sites import GroupValues, Held, Stays, check_door, components

KIND = "hidden"


@dataclass(frozen=True, slots=True)
class Reader:
    """A weight that sums over a norm of the stream, and the bias that is added to its product; "" where none is."""

    held: Held
    bias: str


@dataclass(frozen=True, slots=True)
class StreamNorm:
    """A norm of the stream.

    Attributes:
        x: What it normalizes.
        gain: Its gain, an initializer of its own; empty where it has none.
        offset: Its offset; likewise.
        readers: All that its output reaches.
    """

    x: str
    gain: str
    offset: str
    readers: tuple[Reader, ...]


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
    """Looks at one group."""

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
        links = [link for k in self.nodes for link in self._links(k)]
        if any(link.orthogonal for link in links):
            raise Bends("its length is taken apart from its norms")
        parameters = {value.name for norm in norms for value in (norm.gain, norm.offset) if value is not None}
        every = [spot for name, value in self.values.items() if name not in parameters
                 for spot in self.follower.spots(value, self.group.dim)]  # fmt: skip
        parts = components(every, links)
        of = {spot: k for k, part in enumerate(parts) for spot in part}
        streams = {of[norm.x] for norm in norms}
        for norm in norms:
            if of[norm.y] in streams:
                raise Bends(f"{_title(norm.node)} is a part of the stream, as in a post-norm model")
        if len(streams) > 1:
            raise Bends(f"{_title(norms[-1].node)} normalizes something else than the other norms do")
        (stream,) = streams
        readers = [self._read_by(norm, parts[of[norm.y]], norms, links) for norm in norms]
        if set(of.values()) != streams | {of[norm.y] for norm in norms}:
            raise Bends("something of this width is no part of the stream, nor reads a norm of it")
        writers = [spot for spot in parts[stream] if self.is_weight(spot)]
        flip = parts[stream][norms[0].x]
        if any(parts[stream][spot] != flip for spot in (*writers, *(norm.x for norm in norms))):
            raise Bends("a weight reads the stream without a norm")
        return StreamTurn(self.group, tuple(map(self.weight, writers)), tuple(readers), norms[0].centred)

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
        self, norm: _Norm, part: Mapping[Spot, bool], norms: Sequence[_Norm], links: Sequence[Link]
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
        readers = []
        for spot in weights:
            nodes = [link.node for link in links if link.summed and spot in (link.a, link.b)]
            readers.append(Reader(self.weight(spot), self._bias(spot, nodes, norm.offset)))
        sums = [link for link in links if link.summed and (link.a in part or link.b in part)]
        if len(sums) != len(weights):
            raise Bends(f"what {name} makes is compared with itself")
        gain, offset = (value.name or "" if value is not None else "" for value in (norm.gain, norm.offset))
        return StreamNorm(str(norm.x[0]), gain, offset, tuple(readers))

    def _bias(self, spot: Spot, nodes: Sequence[int], offset: ir.Value | None) -> str:
        """The bias that the offset of a norm goes into.

        Raises:
            Bends: there is none, or it is not added to the product alone.
        """
        weight = self.values[str(spot[0])]
        if len(nodes) != 1 or len(list(weight.uses())) != 1:
            raise Bends(f"the weight {weight.name} has other uses, too")
        if offset is None:
            return ""
        node, shape = self.follower.nodes[nodes[0]], weight.shape
        plain = node.op_type == "MatMul" or (
            node.op_type == "Gemm"
            and node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0
        )
        if node.inputs[1] is not weight or not plain or shape is None or len(shape) != 2:
            raise Bends(f"the offset of a norm cannot go into {_title(node)}")
        bias = own_bias(node, int(shape.numpy()[1 - spot[1]]))
        if bias is None or len(list(bias.uses())) != 1 or bias.dtype not in FLOATS:
            raise Bends(f"{_title(node)} has no bias of its own to take the offset of a norm")
        return bias.name or ""


def _is_norm(node: ir.Node) -> bool:
    return traits_of(node).norm is not None


def _title(node: ir.Node) -> str:
    return f"{node.name or node.op_type} ({node.op_type})"
