"""Find the weights that sum removed units, and write each such sum as the product of a matrix.

Nothing here knows a layer type: the analysis says which axis a weight sums, and a table says how an op spells that sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.bodies import nodes_in_bodies
from prunegraph.analysis.slots import Keeps, kept_positions
from prunegraph.analysis.solution import ContractionSite
from prunegraph.arrays import Array, Mask

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution moves over its input; all are one number a spatial axis, `pads` begins before ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RepairSite:
    """One use of a weight: `y = factor · features(x) @ matrix + bias`.

    Attributes:
        label: The name of the node.
        x: The activation that it reads.
        axis: Which of its axes is summed.
        y: What it makes, perhaps before a bias.
        out: Which axis of `y` the weight makes.
        weight: The initializer.
        turned: Whether the weight's first axis is the one it makes, as in Conv and in Gemm with `transB`.
        window: How a convolution reads `x`; None for a product.
        factor: What the op multiplies the product by.
    """

    label: str
    x: str
    axis: int
    y: str
    out: int
    weight: str
    turned: bool = False
    window: Window | None = None
    factor: float = 1.0

    @property
    def key(self) -> tuple[str, str]:
        """Sites with one key see the same features and the same output."""
        return self.x, self.y

    def features(self, shape: Sequence[int]) -> int:
        """How many numbers it sums, of the shape of its weight."""
        return math.prod(shape[1:]) if self.turned else shape[0]

    def matrix(self, weight: Array) -> npt.NDArray[np.float64]:
        """The weight as `[features, outputs]`, the op's factor in it."""
        flat = weight.reshape(weight.shape[0], -1).T if self.turned else weight
        return np.asarray(flat, dtype=np.float64) * self.factor

    def weight_of(self, matrix: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """The weight that `matrix` makes this of."""
        plain = matrix / self.factor
        return (plain.T if self.turned else plain).reshape(shape)

    def kept(self, analysis: Analysis, keeps: Keeps, shape: tuple[int, ...]) -> Mask | None:
        """Which features stay, None where that differs from output to output."""
        solution = analysis.solution
        mask = kept_positions(solution.resolve(self.weight), keeps, solution.dim_size)[1 if self.turned else 0]
        if mask is None:
            mask = np.ones(shape[1 if self.turned else 0], dtype=bool)
        return np.repeat(mask, int(np.prod(shape[2:]))) if mask.ndim == 1 else None


@dataclass(frozen=True, slots=True)
class UnrepairedSum:
    """A sum over removed units that stays as it is, and why."""

    label: str
    weight: str
    reason: str


class _CannotRepair(Exception):
    """A weight's sum that is no plain product."""


def sites(model: ir.Model, analysis: Analysis, dims: Collection[int]) -> list[RepairSite | UnrepairedSum]:
    """Every place where a weight sums units of these Dims, in the order of the graph.

    Args:
        model: The normalized model.
        analysis: Its analysis.
        dims: The Dims of groups that get smaller.
    """
    return list(_found(model, analysis, set(dims)))


def _found(model: ir.Model, analysis: Analysis, dims: set[int]) -> Iterator[RepairSite | UnrepairedSum]:
    solution = analysis.solution
    means = {group.dim for group in analysis.groups if not group.exact}
    nodes, repeated = list(model.graph), nodes_in_bodies(model.graph)
    for contraction in solution.contractions():
        weight, node = contraction.weight, nodes[contraction.node]
        if weight is None or not contraction.summed & dims:
            continue
        if node in repeated:
            yield UnrepairedSum(node.name or "", weight.value, "it is read in every trip of a loop")
            continue
        if contraction.summed & dims & means:
            why = "a mean or an extreme is taken over its units, so that other activations reach it"
            yield UnrepairedSum(node.name or "", weight.value, why)
            continue
        yield _as_product(node, contraction, weight.value)


def cut_products(model: ir.Model, analysis: Analysis, keeps: Keeps) -> list[RepairSite | UnrepairedSum]:
    """Every product with a weight that loses inputs or outputs, in the order of the graph.

    Args:
        model: The normalized model.
        analysis: Its analysis.
        keeps: What stays.
    """
    nodes, solution = list(model.graph), analysis.solution
    places: list[RepairSite | UnrepairedSum] = []
    for contraction in solution.contractions():
        weight, node = contraction.weight, nodes[contraction.node]
        if weight is None:
            continue
        masks = kept_positions(solution.resolve(weight.value), keeps, solution.dim_size)
        if all(mask is None or mask.all() for mask in masks):
            continue
        places.append(_as_product(node, contraction, weight.value))
    return places


def _as_product(node: ir.Node, contraction: ContractionSite, weight: str) -> RepairSite | UnrepairedSum:
    try:
        return _site(node, contraction)
    except _CannotRepair as reason:
        return UnrepairedSum(node.name or "", weight, str(reason))


def _site(node: ir.Node, contraction: ContractionSite) -> RepairSite:
    read = _READ.get(node.op_type)
    x, weight = (node.inputs[operand.index] for operand in contraction.operands)
    assert weight is not None and x is not None
    if read is None or not contraction.operands[1].is_weight:
        raise _CannotRepair(f"{node.op_type} is no plain product of a weight")
    initializer, flipped = _initializer(weight)
    if initializer.const_value is None or initializer.const_value.dtype not in _FLOATS:
        raise _CannotRepair("the weight is quantized, or computed in the graph")
    site = read(node, x.name or "", initializer)
    return replace(site, turned=not site.turned) if flipped else site


def _initializer(value: ir.Value) -> tuple[ir.Value, bool]:
    """The initializer that a weight is, or is the transpose of."""
    node = value.producer()
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        if node.attributes.get_ints("perm", [1, 0]) == [1, 0] and not len(list(value.uses())) > 1:
            return node.inputs[0], True
    return value, False


def _product(node: ir.Node, x: str, weight: ir.Value) -> RepairSite:
    if len(_shape(weight)) != 2:
        raise _CannotRepair("the weight is no matrix")
    return RepairSite(node.name or "", x, -1, node.outputs[0].name or "", -1, weight.name or "")


def _gemm(node: ir.Node, x: str, weight: ir.Value) -> RepairSite:
    if node.attributes.get_int("transA", 0) or node.attributes.get_float("beta", 1.0) != 1.0:
        raise _CannotRepair("Gemm with transA or beta")
    turned, factor = bool(node.attributes.get_int("transB", 0)), node.attributes.get_float("alpha", 1.0)
    if factor == 0 or node.attributes.get("activation") is not None:
        raise _CannotRepair("nothing is known of the product's sum alone")
    return RepairSite(node.name or "", x, 1, node.outputs[0].name or "", 1, weight.name or "", turned, None, factor)


def _conv(node: ir.Node, x: str, weight: ir.Value) -> RepairSite:
    kernel = _shape(weight)[2:]
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    if node.attributes.get_int("group", 1) != 1:
        raise _CannotRepair("a convolution in groups")
    if automatic not in ("NOTSET", "VALID"):
        raise _CannotRepair(f"a convolution with auto_pad {automatic}")
    ones = [1] * len(kernel)
    pads = [0] * (2 * len(kernel)) if automatic == "VALID" else node.attributes.get_ints("pads", [0, 0] * len(kernel))
    strides, dilations = (node.attributes.get_ints(name, ones) for name in ("strides", "dilations"))
    window = Window(kernel, tuple(strides), tuple(pads), tuple(dilations))
    return RepairSite(node.name or "", x, 1, node.outputs[0].name or "", 1, weight.name or "", True, window)


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape.numpy())


_READ: dict[str, Callable[[ir.Node, str, ir.Value], RepairSite]] = {"MatMul": _product, "Gemm": _gemm, "Conv": _conv}
