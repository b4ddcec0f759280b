"""How much reaches a unit and how much is read of it, told from weights alone.

Energies (sums of squares) are followed from the weights that make a unit's slots, through norms, gains and products,
to the weights that read them: of a plain MLP that is `‖W_in[:, j]‖² · ‖W_out[j, :]‖²`.  What nothing makes or nothing
reads has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.axes import Expr
from prunegraph.analysis.groups import Group
from prunegraph.analysis.ops import Norm, traits_of
from prunegraph.analysis.slots import unit_sums
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Array, Floats
from prunegraph.passes.score.weights import weight_reader

_SMALL = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Energy:
    """What the slots of every unit hold, both of the group's shape.

    Attributes:
        varying: The sum of squares of what depends on the input, per unit of variance of that.
        constant: What is there whatever the input; signed where a unit has one number.
    """

    varying: Floats
    constant: Floats

    @property
    def total(self) -> Floats:
        """The varying part and the constant one, together."""
        return self.varying + self.constant**2

    def __add__(self, other: Energy) -> Energy:
        return Energy(self.varying + other.varying, self.constant + other.constant)

    def __mul__(self, other: Energy) -> Energy:
        constant = self.constant * other.constant
        return Energy(self.total * other.total - constant**2, constant)


Touching = Mapping[int, Sequence[tuple[int, ir.Node]]]
"""By Dim the nodes, with their positions, that something of it goes into or comes out of."""


def touching(graph: ir.Graph, solution: Solution) -> Touching:
    """Which nodes have to do with which Dims, in one walk."""
    nodes: dict[int, list[tuple[int, ir.Node]]] = defaultdict(list)
    leaves_of: dict[str, frozenset[int]] = {}
    for k, node in enumerate(graph):
        names = {value.name or "" for value in (*node.inputs, *node.outputs) if value is not None}
        for name in names - leaves_of.keys():
            dims = solution.axes.get(name, ())
            leaves_of[name] = frozenset(leaf for dim in dims for leaf in solution.space.leaves(dim))
        for dim in {leaf for name in names for leaf in leaves_of[name]}:
            nodes[dim].append((k, node))
    return nodes


def energy_read(
    model: ir.Model, solution: Solution, group: Group, nodes: Sequence[tuple[int, ir.Node]]
) -> Floats | None:
    """The energy that all readers take from every unit; None where nothing reads them.

    Args:
        model: The normalized model.
        solution: The solution of its axes.
        group: Whose units.
        nodes: The nodes, with their positions, that have to do with them, see `touching`.
    """
    return _Flow(model, solution, group, nodes).run()


def reader_of_weights(
    model: ir.Model, solution: Solution, group: Group, nodes: Iterable[tuple[int, ir.Node]]
) -> Callable[[str], Array | None]:
    """What reads the weights that hold the units of a group, see `weight_reader`.

    Args:
        model: The normalized model.
        solution: The solution of its axes.
        group: Whose units.
        nodes: The nodes, with their positions, that are given the weights.
    """
    names = (value.name or "" for _, node in nodes for value in node.inputs if value is not None)
    return weight_reader(model, [n for n in names if n in solution.weights and group.dim in solution.leaves(n)])


class _Flow:
    """Follows the units of one group through the graph, in its order."""

    def __init__(self, model: ir.Model, solution: Solution, group: Group, nodes: Sequence[tuple[int, ir.Node]]) -> None:
        self.solution, self.group, self.nodes = solution, group, nodes
        self.weight_of = reader_of_weights(model, solution, group, nodes)
        self.energies: dict[str, Energy] = {}
        self.read: Floats | None = None

    def run(self) -> Floats | None:
        """How much is read of every unit; see `energy_read`."""
        for k, node in self.nodes:
            if not any(value.name in self.solution.weights for value in node.outputs):
                self.visit(k, node)
        return self.read

    def visit(self, k: int, node: ir.Node) -> None:
        """Read at contractions, and say what comes out of a node."""
        result, left = None, [value for value in node.inputs if value is not None]
        for contraction in self.solution.rules[k].contractions:
            operands = [node.inputs[index] for index in contraction.operands]
            product = self.product([value for value in operands if value is not None])
            if product is None:
                continue
            left = [value for value in left if value not in operands]
            if self.among(k, contraction.summed):
                self.read = product.total + (0.0 if self.read is None else self.read)
            if self.among(k, (*contraction.batch, *contraction.left, *contraction.right)):
                result = product if result is None else result + product
        if result is None:
            result = self.outcome(node, left)
        else:
            added = self.sum(left)
            result = result if added is None else result + added
        for value in node.outputs:
            if result is not None and self.holds(value.name or ""):
                self.energies[value.name or ""] = self.of_output(node, value, result)

    def outcome(self, node: ir.Node, operands: Sequence[ir.Value]) -> Energy | None:
        """What a node makes that is no contraction."""
        traits = traits_of(node)
        if traits.norm is not None:
            return self.normalized(node, traits.norm)
        if traits.multiplies:
            return self.product(operands, scalars=True, inverse=node.op_type == "Div")
        energy = self.sum(operands, scalars=traits.adds)
        if energy is not None and (traits.lifts_zero or traits.varies):
            return self.filled(1.0)
        if energy is not None and traits.bounded:
            scale = 1 / np.maximum(energy.total, 1)
            return Energy(energy.varying * scale, energy.constant * np.sqrt(scale))
        return energy

    def of_output(self, node: ir.Node, value: ir.Value, result: Energy) -> Energy:
        """What one output holds of that: an op that adds up before it normalizes shows the sum as well."""
        norm = traits_of(node).norm
        if norm is None or norm.sum_output is None or value.index() != norm.sum_output:
            return result
        plain = self.sum(self.added(node, norm))
        return result if plain is None else plain

    def added(self, node: ir.Node, norm: Norm) -> list[ir.Value]:
        """What a norm normalizes: its first input, or all that it adds up first."""
        inputs = [value for value in node.inputs if value is not None]
        if norm.sum_output is None:
            return inputs[:1]
        parameters = [node.inputs[k] for k in range(norm.scale, norm.scale + 1 + norm.centred) if k < len(node.inputs)]
        return [value for value in inputs if value not in parameters]

    def normalized(self, node: ir.Node, norm: Norm) -> Energy | None:
        """The gain's energy for what varies, and the offset."""
        energy = self.sum(self.added(node, norm))
        if energy is None:
            return None
        gain, offset, mean, variance = (self.constant(node, norm.scale + k) for k in range(4))
        if norm.by_channel and variance is not None and mean is not None:  # running statistics: as if folded
            epsilon = node.attributes.get_float("epsilon", norm.epsilon)
            scale = 1.0 / np.sqrt(np.maximum(variance, 0) + epsilon)
            energy = Energy(energy.varying * scale**2, (energy.constant - mean) * scale)
        elif norm.by_channel:
            energy = Energy((energy.varying > 0).astype(np.float64), np.zeros(self.group.shape))
        else:
            size = max(float(energy.total.mean()), _SMALL)
            energy = Energy(energy.varying / size, energy.constant / np.sqrt(size))
        if gain is not None:
            energy = Energy(energy.varying * gain**2, energy.constant * gain)
        return energy if offset is None or not norm.centred else Energy(energy.varying, energy.constant + offset)

    def product(self, values: Sequence[ir.Value], *, scalars: bool = False, inverse: bool = False) -> Energy | None:
        """The product of all values that hold units (and of `scalars`); by `inverse` those after the first divide."""
        result = None
        for k, value in enumerate(values):
            energy = self.energy(value) or (self.scalar(value) if scalars else None)
            if energy is None or (inverse and k and (energy.varying > 0).any()):
                continue
            if inverse and k:
                energy = Energy(energy.varying, 1 / np.where(energy.constant == 0, 1.0, energy.constant))
            result = energy if result is None else result * energy
        return result

    def sum(self, values: Sequence[ir.Value], *, scalars: bool = False) -> Energy | None:
        """The sum of all values that hold units (and of `scalars`)."""
        result = None
        for value in values:
            energy = self.energy(value) or (self.scalar(value) if scalars else None)
            if energy is not None:
                result = energy if result is None else result + energy
        return result

    def constant(self, node: ir.Node, index: int) -> Floats | None:
        """The numbers of a parameter by unit; None where there is none that holds them."""
        value = node.inputs[index] if index < len(node.inputs) else None
        energy = self.energy(value) if value is not None and value.name in self.solution.weights else None
        return None if energy is None else energy.constant + np.sqrt(energy.varying)

    def energy(self, value: ir.Value) -> Energy | None:
        """What a value holds of the units, None if nothing; one where that is not known."""
        name = value.name or ""
        if name not in self.energies and self.holds(name):
            if name not in self.solution.weights:
                self.energies[name] = self.filled(1.0)
            elif (array := self.weight_of(name)) is not None:
                self.energies[name] = self.of_weight(name, array)
        return self.energies.get(name)

    def scalar(self, value: ir.Value) -> Energy | None:
        """A constant that is one number, the same for all units."""
        tensor = value.const_value if value.name in self.solution.weights else None
        return None if tensor is None or tensor.size != 1 else self.filled(0.0, float(tensor.numpy().reshape(())))

    def filled(self, varying: float, constant: float = 0.0) -> Energy:
        """The same for all units."""
        return Energy(np.full(self.group.shape, varying), np.full(self.group.shape, constant))

    def of_weight(self, name: str, array: npt.NDArray[Any]) -> Energy:
        """The numbers of a weight, one a unit; or the sum of their squares, where there are more."""
        args = (self.solution.resolve(name), self.group.dim, self.group.outer, self.solution.dim_size)
        squares = unit_sums(sums_of_squares(array), *args)
        if (unit_sums(counts_of(array), *args) > 1).any():
            return Energy(squares, np.zeros(self.group.shape))
        return Energy(np.zeros(self.group.shape), unit_sums(_sums(array), *args))

    def holds(self, name: str) -> bool:
        """Whether a value holds the units."""
        return self.group.dim in self.solution.leaves(name)

    def among(self, k: int, exprs: Sequence[Expr]) -> bool:
        """Whether an axis that a node names holds the units."""
        return self.group.dim in self.solution.leaves_of(k, exprs)


def sums_of_squares(weight: npt.NDArray[Any]) -> Callable[[tuple[int, ...]], Floats]:
    """Sums of squares over all axes but some, in float64 and without a copy of the weight."""
    floats: Any = weight if weight.dtype.kind in "fiu" else weight.astype(np.float32)
    every = list(range(weight.ndim))

    def total(kept: tuple[int, ...]) -> Floats:
        return np.asarray(np.einsum(floats, every, floats, every, list(kept), dtype=np.float64, casting="same_kind"))

    return total


def _sums(weight: npt.NDArray[Any]) -> Callable[[tuple[int, ...]], Floats]:
    def total(kept: tuple[int, ...]) -> Floats:
        others = tuple(k for k in range(weight.ndim) if k not in kept)
        return np.asarray(weight.sum(axis=others, dtype=np.float64))

    return total


def counts_of(weight: npt.NDArray[Any]) -> Callable[[tuple[int, ...]], Floats]:
    """How many entries are summed."""

    def total(kept: tuple[int, ...]) -> Floats:
        shape = [weight.shape[k] for k in kept]
        return np.full(shape, weight.size / max(int(np.prod(shape, dtype=np.int64)), 1))

    return total
