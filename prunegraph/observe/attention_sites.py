"""Find attention in any graph: where probabilities, Q, K, V and context of every head can be read.

Everything is found through the analysis.  Attention is a contraction of activations over a head, one operand of which
comes out of a Softmax over what another such contraction made; no name, op pattern or exporter is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.axes import Axis, Size
from prunegraph.analysis.groups import Group
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.slots import Slots, slots, unit_index
from prunegraph.analysis.solution import ContractionSite, Solution
from prunegraph.arrays import Index
from prunegraph.moved import former_names
from prunegraph.observe.decompose_attention import FUSED, hidden_probabilities, projects_qkv

HEAD_KINDS = ("head", "kv_group", "query_head")
_FAR = 200


@dataclass(frozen=True, slots=True)
class ObservedValue:
    """A value to read in every run; where a fused op hides it, which output of which node to ask for, and how.

    Attributes:
        value: Its name.
        node: The position of the node that must be asked, None where the value is in the graph anyway.
        output: Which of its outputs.
        attributes: Attributes to set on the node.
        scores: Whether the op gives scores, masked and scaled, from before the Softmax.
    """

    value: str
    node: int | None = None
    output: int = 0
    attributes: tuple[tuple[str, int], ...] = ()
    scores: bool = False


@dataclass(frozen=True, slots=True)
class HeadAxes:
    """How to bring a tensor to `[batch, heads, ...]`: axes of the batch, of heads, and the others in order."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    rest: tuple[int, ...]
    count: int

    def view(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The tensor as `[batch, heads, *rest]`."""
        moved = np.transpose(array, (*self.batch, *self.heads, *self.rest))
        return moved.reshape(-1, self.count, *(array.shape[axis] for axis in self.rest))


@dataclass(frozen=True, slots=True)
class Attention:
    """One place where queries attend to keys.

    Attributes:
        layer: Its number among all such places, in the order of the graph.
        node: The position of the node that mixes values by probabilities.
        label: The name of that node.
        heads: How many heads attend there.
        dims: The Dims that tell them apart, outermost first.
        units: By id of every group of heads, which unit (flat, of the group's shape) every head belongs to.
        probabilities: Where to read the attention probabilities, None where the op does not give them away.
        axes: Brings them to `[batch, heads, queries, keys]`.
        q: The queries as they are compared, after scaling and rotation; empty where a fused op hides them.
        k: The keys as they are compared.
        v: The values; empty where an op makes them inside, as are q and k then.
        context: What comes out, head by head.
    """

    layer: int
    node: int
    label: str
    heads: int
    dims: tuple[int, ...]
    units: dict[str, Index]
    probabilities: ObservedValue | None
    axes: HeadAxes
    q: str
    k: str
    v: str
    context: str

    def maps(self, values: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The attention probabilities of a batch, `[batch, heads, queries, keys]`, from the values that were read."""
        assert self.probabilities is not None
        read = self.axes.view(values[self.probabilities.value])
        if not self.probabilities.scores:
            return read
        powers = np.exp(read - read.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def attentions(model: ir.Model, analysis: Analysis) -> tuple[Attention, ...]:
    """Every place of a normalized model where a head attends, in the order of the graph."""
    return tuple(_Finder(model, analysis).find())


def consumers(model: ir.Model, analysis: Analysis, group: Group) -> tuple[tuple[str, int], ...]:
    """Where the units of a group are summed by a weight: the activation's name and which of its axes holds the units.

    That is the hidden activation of an FFN, the context of heads and of V dims, the input of every weight that
    reads `hidden`.
    """
    solution = analysis.solution
    operands = (operand for site in solution.contractions() for operand in site.operands if not operand.is_weight)
    places = ((operand.value, axis) for operand in operands for axis in operand.summed)
    return tuple(dict.fromkeys(place for place in places if group.dim in solution.leaves(*place)))


class _Finder:
    def __init__(self, model: ir.Model, analysis: Analysis) -> None:
        self.solution: Solution = analysis.solution
        self.nodes = list(model.graph)
        self.position = {node: k for k, node in enumerate(self.nodes)}
        self.groups = [group for group in analysis.groups if group.kind in HEAD_KINDS]
        self.dims = {group.dim for group in self.groups}

    def find(self) -> Iterator[Attention]:
        layer = 0
        for k, node in enumerate(self.nodes):
            pair = [each for each in self.solution.contracted[k] if self._attends(node, each)]
            if (node.domain, node.op_type) in FUSED:
                site = self._fused(k, node, layer) if len(pair) == 2 else None
            else:
                site = self._spelt_out(k, node, pair[0], layer) if len(pair) == 1 else None
            if site is not None:
                layer += 1
                yield site

    def _attends(self, node: ir.Node, contraction: ContractionSite) -> bool:
        """Whether activations are contracted with each other, head by head."""
        fused = (node.domain, node.op_type) in FUSED
        return (fused or contraction.of_activations) and bool(self.dims & contraction.batch)

    def _spelt_out(self, k: int, node: ir.Node, contraction: ContractionSite, layer: int) -> Attention | None:
        """The contraction of probabilities and values, None if it is another one."""
        for maps, values in (contraction.operands, contraction.operands[::-1]):
            scores = self._scores(node.inputs[maps.index])
            if scores is None or len(maps.free) != 1 or len(maps.summed) != 1:
                continue
            axes = self._head_axes(maps.value, rest=(*maps.free, *maps.summed))
            if axes is None:
                continue
            return Attention(
                layer=layer,
                node=k,
                label=node.name or "",
                heads=axes.count,
                dims=tuple(d for k in axes.heads for d in self.solution.resolve(maps.value)[k].dims()),
                units=self._units(maps.value, axes),
                probabilities=ObservedValue(maps.value),
                axes=axes,
                q=_name(scores.inputs[0]),
                k=_name(scores.inputs[1]),
                v=values.value,
                context=_name(node.outputs[0]),
            )
        return None

    def _fused(self, k: int, node: ir.Node, layer: int) -> Attention | None:
        context = node.outputs[0].name or ""
        axes = self.solution.resolve(context)
        head_axes = [n for n, axis in enumerate(axes) if self.dims & set(axis.dims())]
        if len(head_axes) != 1:
            return None
        heads = _leading(axes[head_axes[0]], self.dims)
        if heads is None:
            return None
        units = _units_of([heads], self.groups, self._period)
        count = int(np.prod([self._period(d)[0] for d in heads.dims()]))
        hidden = hidden_probabilities(node)
        probabilities = (
            None
            if hidden is None
            else ObservedValue(f"{context}/probabilities", k, hidden.output, hidden.attributes, hidden.scores)
        )
        inside = projects_qkv(node)
        q, key, v = ("" if inside or n >= len(node.inputs) else _name(node.inputs[n]) for n in (0, 1, 2))
        straight = HeadAxes((0,), (1,), (2, 3), count)
        return Attention(
            layer, k, node.name or "", count, tuple(heads.dims()), units, probabilities, straight, q, key, v, context
        )

    def _scores(self, value: ir.Value | None) -> ir.Node | None:
        """The contraction that a Softmax between it and this value is taken over."""
        waiting, visited = [(value, False)], set[tuple[ir.Node, bool]]()
        while waiting and len(visited) < _FAR:
            current, softened = waiting.pop(0)
            node = current.producer() if current is not None else None
            if node is None or (node, softened) in visited or node not in self.position:
                continue
            visited.add((node, softened))
            k = self.position[node]
            contractions = self.solution.contracted[k]
            if contractions:
                if softened and any(self._attends(node, each) for each in contractions):
                    return node
                continue
            traits = traits_of(node)
            softened = softened or traits.softmax or traits.exponential
            waiting += [(operand, softened) for operand in node.inputs]
        return None

    def _head_axes(self, name: str, rest: tuple[int, ...]) -> HeadAxes | None:
        axes = self.solution.resolve(name)
        others = [k for k in range(len(axes)) if k not in rest]
        heads = tuple(k for k in others if self.dims & set(axes[k].dims()))
        batch = tuple(k for k in others if k not in heads)
        if not heads or not all(_dynamic_first(axes[k], self.solution.dim_size) for k in heads):
            return None
        if any(len(set(self.solution.dim_size(d))) > 1 for k in heads[1:] for d in axes[k].dims()):
            return None
        count = int(np.prod([self._period(d)[0] for k in heads for d in axes[k].dims()]))
        return HeadAxes(batch, heads, rest, count)

    def _units(self, name: str, axes: HeadAxes) -> dict[str, Index]:
        resolved = self.solution.resolve(name)
        return _units_of([resolved[k] for k in axes.heads], self.groups, self._period)

    def _period(self, dim: int) -> Size:
        """A dynamic Dim counts once: it varies slowest."""
        size = self.solution.dim_size(dim)
        return size if len(set(size)) == 1 else (1,) * len(size)


def _units_of(axes: Sequence[Axis], groups: Iterable[Group], period: Any) -> dict[str, Index]:
    """By group, the flat unit of every head, the heads counted over the given axes in row-major order."""
    units: dict[str, Index] = {}
    for group in groups:
        group_dims = {group.dim, *group.outer}
        tables: list[Slots] = [slots(axis, period, group_dims.__contains__) for axis in axes]
        for k, table in enumerate(tables):
            for dim, where in table:
                if dim != group.dim or any(all(o != d for t in tables for d, _ in t) for o in group.outer):
                    continue
                index, free = unit_index(k, where, group.outer, tables, len(axes))
                flat = np.ravel_multi_index(
                    tuple(np.maximum(column, 0) for column in np.broadcast_arrays(*index)), group.shape
                )
                flat = np.where(free, -1, flat)
                if flat.ndim == 1 and len(axes) > 1:
                    flat = flat.reshape([-1 if a == k else 1 for a in range(len(axes))])
                lengths = [int(np.prod([period(d)[0] for d in axis.dims()])) for axis in axes]
                units[group.id] = np.broadcast_to(flat, lengths).reshape(-1).astype(np.int64)
    return units


def _leading(axis: Axis, dims: set[int]) -> Axis | None:
    """The head part of `heads·width`, None where the axis is of another make."""
    if len(axis.terms) != 1 or not all(isinstance(factor, int) for factor in axis.terms[0]):
        return None
    factors = [factor for factor in axis.terms[0] if isinstance(factor, int)]
    last = max(k for k, factor in enumerate(factors) if factor in dims)
    return Axis((tuple(factors[: last + 1]),))


def _dynamic_first(axis: Axis, size_of: Any) -> bool:
    """Whether an axis is one product whose dynamic factors all stand first (`batch·head`)."""
    if len(axis.terms) != 1 or not all(isinstance(factor, int) for factor in axis.terms[0]):
        return False
    dynamic = [len(set(size_of(factor))) > 1 for factor in axis.terms[0]]
    return dynamic == sorted(dynamic, reverse=True)


def _name(value: ir.Value | None) -> str:
    return value.name or "" if value is not None else ""


__getattr__ = former_names(__name__, Tap=ObservedValue, consumed=consumers)
