"""The settled axes of a graph: what every axis is made of, and what nodes do to them.  Plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prunegraph.analysis.axes import Axis, Expr, Fresh, Prod, Ref, Size, Sum
from prunegraph.analysis.facts import Facts
from prunegraph.analysis.relations import AxisRule, Reduction
from prunegraph.analysis.space import Space


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
    least: int = 1


@dataclass(frozen=True, slots=True)
class Operand:
    """One of the two operands of a contraction.

    Attributes:
        value: Its name.
        index: Which input of the node it is.
        is_weight: Whether it follows from constants alone.
        summed: Its axes that are summed over, as far as they are axes of its own.
        free: Its axes that the other operand does not have.
        leaves: The leaves of what the other operand does not have.
    """

    value: str
    index: int
    is_weight: bool
    summed: tuple[int, ...]
    free: tuple[int, ...]
    leaves: frozenset[int]


@dataclass(frozen=True, slots=True)
class ContractionSite:
    """A sum of products of two operands, or a convolution, with all its axes resolved to leaves.

    Attributes:
        node: The position of the node.
        operands: Left and right.
        batch: The leaves that both operands and the product have.
        summed: The leaves that are summed over.
        macs: The axes whose lengths multiply to multiply-accumulates.
        conv: Whether it is a convolution.
    """

    node: int
    operands: tuple[Operand, Operand]
    batch: frozenset[int]
    summed: frozenset[int]
    macs: tuple[Axis, ...]
    conv: bool

    @property
    def of_activations(self) -> bool:
        """Whether no operand is a weight."""
        return not any(operand.is_weight for operand in self.operands)

    @property
    def weight(self) -> Operand | None:
        """The operand that is a weight, if it is one of the two alone."""
        left, right = self.operands
        return None if left.is_weight == right.is_weight else left if left.is_weight else right

    @property
    def activation(self) -> Operand | None:
        """What the weight is multiplied with, None where not just one operand is a weight."""
        left, right = self.operands
        return None if left.is_weight == right.is_weight else right if left.is_weight else left


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Solution:
    """The settled space: what every axis is made of, and what nodes said.

    Attributes:
        space: The Dims; nothing in it changes any more.
        facts: What the solver was given.
        axes: By value, the Dim of every axis.
        labels: A name for every node, by position in the graph, as are the next four.
        inputs: The names of its inputs, "" where one is left out.
        outputs: The names of its outputs.
        rules: What it said.
        contracted: What it contracts.
        fresh: The Dims of axes that rules speak of and no operand has.
        rewrites: Integers that state lengths, to be written anew.
        frozen_lengths: Outputs that state lengths and must keep stating the old ones.
        reduces: Axes that are reduced.
        weights: Values that follow from constants alone.
    """

    space: Space
    facts: Facts
    axes: Mapping[str, tuple[int, ...]]
    labels: tuple[str, ...]
    inputs: tuple[tuple[str, ...], ...]
    outputs: tuple[tuple[str, ...], ...]
    rules: tuple[AxisRule, ...]
    contracted: tuple[tuple[ContractionSite, ...], ...]
    fresh: Mapping[Fresh, int]
    rewrites: tuple[Site, ...]
    frozen_lengths: tuple[Site, ...]
    reduces: tuple[ReduceSite, ...]
    weights: frozenset[str]

    def __repr__(self) -> str:
        """How much it holds."""
        return f"Solution({len(self.labels)} nodes, {len(self.axes)} values)"

    def contractions(self) -> Iterator[ContractionSite]:
        """Every contraction, in the order of the graph."""
        for sites in self.contracted:
            yield from sites

    def value_of(self, node: int, ref: Ref) -> str:
        """The name of the value that a rule speaks of."""
        return (self.inputs if ref.side == "x" else self.outputs)[node][ref.index]

    def leaves_of(self, node: int, exprs: Iterable[Expr]) -> frozenset[int]:
        """The leaves of what the rule of a node speaks of."""
        return frozenset(leaf for expr in exprs for dim in self._dims(node, expr) for leaf in self.space.leaves(dim))

    def _dims(self, node: int, expr: Expr) -> Iterator[int]:
        match expr:
            case Ref():
                yield self.axes[self.value_of(node, expr)][expr.axis]
            case Fresh():
                yield self.fresh[expr]
            case Prod(parts) | Sum(parts):
                for part in parts:
                    yield from self._dims(node, part)

    def leaves(self, value: str, axis: int | None = None) -> frozenset[int]:
        """The leaves that a value holds, or one of its axes; none of a value of unknown rank."""
        dims = self.axes.get(value, ())
        return frozenset(
            leaf for dim in (dims if axis is None else dims[axis : axis + 1]) for leaf in self.space.leaves(dim)
        )

    def resolve(self, value: str) -> tuple[Axis, ...]:
        """The axes of a value."""
        return tuple(self.space.resolve(dim) for dim in self.axes[value])

    def dim_size(self, dim: int) -> Size:
        """The length of a Dim before anything is removed."""
        return self.space.size(dim)
