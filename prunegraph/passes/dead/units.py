"""Which units are zero, or one number, whatever the model is given: told from weights and the kinds of ops alone.

Followed is what can be proved: zeros through ops that make zero of zero, products with zeros, sums of zeros; constants
through ops that work number by number.  What no such fact holds of varies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.relations import Reduction
from prunegraph.analysis.slots import unit_sums
from prunegraph.analysis.solution import ContractionSite, Solution
from prunegraph.arrays import Array, Mask
from prunegraph.passes.score.weight_flow import counts_of, reader_of_weights, sums_of_squares, touching


@dataclass(frozen=True, slots=True)
class State:
    """What is known of every unit in one value, both of the group's shape.

    Attributes:
        constant: It holds one number a position, the same in every run.
        zero: That number is zero.
    """

    constant: Mask
    zero: Mask

    def __and__(self, other: State) -> State:
        return State(self.constant & other.constant, self.zero & other.zero)


@dataclass(frozen=True, slots=True)
class Reader:
    """One place where units are summed up, or reduced.

    Attributes:
        site: The sum of products; None where it is none.
        unread: Units that add nothing to it: they are zero, or what they are multiplied with is.
        constant: Units that are constant where it reads them.
    """

    site: ContractionSite | None
    unread: Mask
    constant: Mask


def dead_units(model: ir.Model, analysis: Analysis) -> dict[str, Mask]:
    """By group id the units that no output hangs on, of the group's shape; groups without any are left out.

    Args:
        model: The normalized model.
        analysis: Its analysis.
    """
    dead = {}
    for group, readers in readers_of(model, analysis):
        mask = np.logical_and.reduce([reader.unread for reader in readers])
        if mask.any():
            dead[group.id] = mask
    return dead


def readers_of(model: ir.Model, analysis: Analysis) -> Iterator[tuple[Group, list[Reader]]]:
    """Every group that something reads and that no graph input or output holds, with all that reads it."""
    nodes = touching(model.graph, analysis.solution)
    doors = [value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)]
    outside = {leaf for name in doors for leaf in analysis.solution.leaves(name)}
    for group in analysis.groups:
        if group.dim not in outside:
            readers = _States(model, analysis.solution, group, nodes.get(group.dim, ())).run()
            if readers:
                yield group, readers


class _States:
    """Follows the units of one group through the graph, in its order."""

    def __init__(self, model: ir.Model, solution: Solution, group: Group, nodes: Sequence[tuple[int, ir.Node]]) -> None:
        self.solution, self.group, self.nodes = solution, group, nodes
        self.weight_of = reader_of_weights(model, solution, group, nodes)
        self.states: dict[str, State] = {}

    def run(self) -> list[Reader]:
        """All that reads the units."""
        readers: list[Reader] = []
        for k, node in self.nodes:
            if any(value.name in self.solution.weights for value in node.outputs):
                continue
            readers += self.readers(k, node)
            state = self.outcome(k, node)
            self.states |= {value.name or "": state for value in node.outputs if self.holds(value.name or "")}
        return readers

    def readers(self, k: int, node: ir.Node) -> Iterator[Reader]:
        """What a node sums up or reduces."""
        summed = set[int]()
        for site in self.solution.contracted[k]:
            if self.group.dim in site.summed:
                summed |= {operand.index for operand in site.operands}
                states = [self.of(node.inputs[operand.index]) for operand in site.operands]
                weighed = site.activation
                constant = states[site.operands.index(weighed)].constant if weighed is not None else self.none()
                yield Reader(site, states[0].zero | states[1].zero, constant)
        for reduce in (each for each in self.solution.reduces if each.node == k and each.index not in summed):
            value = node.inputs[reduce.index]
            if value is not None and self.group.dim in self.solution.leaves(value.name or "", reduce.axis):
                plain = reduce.kind is Reduction.SUM and not reduce.inside
                yield Reader(None, self.of(value).zero if plain else self.none(), self.none())

    def outcome(self, k: int, node: ir.Node) -> State:
        """What a node makes of the units."""
        traits = traits_of(node)
        if traits.random:
            return self.varying()
        if self.solution.contracted[k]:
            return self.contracted(k, node) if traits.contracts and traits.linear else self.varying()
        if traits.norm is not None:
            return self.normalized(node) if traits.norm.by_channel and len(node.inputs) > 4 else self.varying()
        if traits.multiplies:
            return self.multiplied(node)
        if traits.carries:
            parts = [value for j, value in enumerate(node.inputs) if j in traits.carries and value is not None]
            return self.all_of([self.of(value) for value in parts if self.holds(value.name or "")])
        states = [self.of(value) for value in node.inputs if value is not None]
        if traits.pointwise:
            joined = self.all_of(states)
            return State(joined.constant, joined.zero & traits.keeps_zero)
        if traits.averages or traits.moves:  # a sum of constants hangs on how many there are
            first = self.of(node.inputs[0])
            return first if traits.averages else State(first.zero, first.zero)
        return self.varying()

    def contracted(self, k: int, node: ir.Node) -> State:
        """A sum of products in which the units stand apart: zero where a factor is, and then what the bias is."""
        zero = np.ones(self.group.shape, dtype=bool)
        factors = set[int]()
        for site in self.solution.contracted[k]:
            factors |= {operand.index for operand in site.operands}
            states = [self.of(node.inputs[o.index]) for o in site.operands if self.holds(o.value)]
            zero &= np.logical_or.reduce([self.none(), *(state.zero for state in states)])
        state = State(zero, zero)
        for j, value in enumerate(node.inputs):
            if value is not None and j not in factors:
                state &= self.of(value)
        return State(state.constant, state.zero)

    def normalized(self, node: ir.Node) -> State:
        """Running statistics: a gain of zero leaves the offset."""
        x, gain, offset, mean, variance = (self.of(value) for value in node.inputs[:5])
        constant = (x & mean & variance & gain).constant | gain.zero
        return State(constant & offset.constant, gain.zero & offset.zero)

    def multiplied(self, node: ir.Node) -> State:
        """A product is zero where one factor is; a quotient where what is divided is, and what divides it is not."""
        states = [self.of(value) for value in node.inputs if value is not None]
        constant = self.all_of(states).constant
        zero = np.logical_or.reduce([state.zero for state in states])
        if node.op_type == "Div":
            zero = states[0].zero & states[1].constant & ~states[1].zero
            constant = constant & ~states[1].zero
        return State(constant | zero, zero)

    def of(self, value: ir.Value | None) -> State:
        """What is known of a value; of a constant that does not hold the units, as if each of them had it."""
        name = value.name or "" if value is not None else ""
        if name in self.states:
            return self.states[name]
        state = self.varying()
        if name in self.solution.weights and self.holds(name):
            array = self.weight_of(name)
            state = state if array is None else self.of_weight(name, array)
        elif value is not None and name in self.solution.weights:
            tensor = value.const_value
            if tensor is not None and tensor.size == 1:
                one = np.ones(self.group.shape, dtype=bool)
                state = State(one, one & (not np.any(tensor.numpy())))
        self.states[name] = state
        return state

    def of_weight(self, name: str, array: Array) -> State:
        """A weight is constant where a unit has one number of it, or none but zeros."""
        if array.dtype.kind != "f":  # codes of a quantization: what zero is, others know
            return self.varying()
        args = (self.solution.resolve(name), self.group.dim, self.group.outer, self.solution.dim_size)
        zero = unit_sums(sums_of_squares(array), *args) == 0
        return State(zero | (unit_sums(counts_of(array), *args) == 1), zero)

    def all_of(self, states: Sequence[State]) -> State:
        """What holds of all of them."""
        joined = states[0] if states else self.varying()
        for state in states[1:]:
            joined &= state
        return joined

    def none(self) -> Mask:
        """A mask that names no unit of the value."""
        return np.zeros(self.group.shape, dtype=bool)

    def varying(self) -> State:
        """Nothing is known of any unit."""
        return State(self.none(), self.none())

    def holds(self, name: str) -> bool:
        """Whether a value holds the units."""
        return self.group.dim in self.solution.leaves(name)
