"""The oracle of verify: the original graph with 0/1 multipliers at the inputs of whatever sums over a removed slot.

It shares nothing with Shrink but the selection: no constant is cut and no length rewritten.  Where a mean is taken, the
mean of what stays is taken instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.kept_positions import Positions
from prunegraph.analysis.ops import Norm, traits_of
from prunegraph.analysis.relations import Reduction
from prunegraph.analysis.slots import Keeps
from prunegraph.analysis.solve import ReduceSite, Solution
from prunegraph.arrays import Mask
from prunegraph.errors import VerificationFailed
from prunegraph.runtime.edit import Editor

_FILL = {
    Reduction.SUM: 0.0,
    Reduction.MEAN: 0.0,
    Reduction.MAX: -3.0e38,
    Reduction.RANK: -3.0e38,
    Reduction.MIN: 3.0e38,
}


def masked(model: ir.Model, solution: Solution, keeps: Keeps) -> ir.Model:
    """A copy of a normalized float32 model in which removed slots have no effect.

    Args:
        model: The model that `solution` speaks of (its nodes in the same order).
        solution: Its settled axes.
        keeps: What stays.
    """
    twin = model.clone()
    nodes = list(twin.graph)
    operands = [[value.name if value is not None else None for value in node.inputs] for node in model.graph]
    by_operand: dict[tuple[int, int], list[ReduceSite]] = defaultdict(list)
    for site in solution.reduces:
        by_operand[site.node, site.index].append(site)
    reduced: dict[int, list[int]] = defaultdict(list)
    for k, index in by_operand:
        reduced[k].append(index)
    positions = Positions(solution, keeps)
    editor = Editor(twin.graph)
    for (k, index), sites in by_operand.items():
        name = operands[k][index]
        assert name is not None
        others = [operands[k][other] for other in reduced[k] if other != index]
        summed = all(site.kind is Reduction.SUM and not site.inside for site in sites)
        if name in solution.weights and len(others) == 1 and others[0] not in solution.weights and summed:
            continue  # masking the other operand is enough
        mask = positions.mask(name, [site.axis for site in sites])
        if mask is not None:
            periodic = [axis for axis in range(mask.ndim) if mask.shape[axis] > 1 and positions.dynamic(name, axis)]
            _Writer(editor, nodes[k], index, mask, [site.axis for site in sites], periodic).write(sites[0])
    return twin


class _Writer:
    """Writes the masked form of one node."""

    def __init__(
        self, editor: Editor, node: ir.Node, index: int, mask: Mask, axes: Sequence[int], periodic: Sequence[int]
    ) -> None:
        self.editor, self.place, self.node, self.index = editor, editor.at(node), node, index
        self.mask = mask
        self.axes = list(axes)
        self.periodic = list(periodic)  # axes along which the mask repeats as often as the run asks for
        self.version = editor.graph.opset_imports.get("", 17)
        self.here = self.place.before()

    def write(self, site: ReduceSite) -> None:
        index, traits = self.index, traits_of(self.node)
        value = self.node.inputs[index]
        assert value is not None
        if site.zero is not None:
            kept = self.here.add("Where", self.mask_for(value), value, self.zero(value, site.zero))
            self.node.replace_input_with(index, kept)
        elif site.kind is not Reduction.MEAN:
            self.node.replace_input_with(index, self.where(value, _FILL[site.kind]))
        elif traits.averages and traits.pools:
            mean = self.mean(self.double(self.where(value, 0.0)))
            self.stand_in(self.node.outputs[0], self.single(mean, like=value))
        elif traits.averages:
            self.node.replace_input_with(index, self.double(self.where(value, 0.0)))
            output = self.node.outputs[0]
            self.here = self.place.after()
            self.stand_in(output, self.single(self.scaled(output), like=value))
            output.type = ir.TensorType(ir.DataType.DOUBLE)
        elif norm := traits.norm:
            self.norm(value, norm)
        else:
            raise VerificationFailed(
                f"there is no masked form of {self.node.op_type}, which takes a mean",
                hint=f"--exclude the groups that the node {self.node.name} normalizes",
            )

    def kept_share(self) -> float:
        """Which part of the slots along the reduced axes stays."""
        share = self.mask.mean(axis=tuple(self.axes))
        return float(np.max(share)) or 1.0  # where nothing stays, nothing reads the mean of it

    def norm(self, x: ir.Value, norm: Norm) -> None:
        """A normalisation spelt out, its statistics over what stays."""
        if norm.sum_output is not None:
            x, self.axes, self.here = self.output(norm.sum_output), [-1], self.place.after()
        epsilon = self.node.attributes.get_float("epsilon", norm.epsilon)
        wide = self.double(x)
        centred = self.here.add("Sub", wide, self.mean(self.double(self.where(x, 0.0)))) if norm.centred else wide
        kept = self.here.add("Where", self.mask_for(x), centred, self.here.constant(np.float64(0)))
        variance = self.mean(self.here.add("Mul", kept, kept))
        deviation = self.here.add("Sqrt", self.here.add("Add", variance, self.here.constant(np.float64(epsilon))))
        y = self.single(self.here.add("Div", centred, deviation), like=x)
        # What follows the scale of a root-mean-square norm is no offset, but something that its own sum holds already.
        parameters = self.node.inputs[norm.scale : norm.scale + (2 if norm.centred else 1)]
        for combine, parameter in zip(("Mul", "Add"), parameters, strict=False):
            if parameter is not None:
                y = self.here.add(combine, y, self.per_channel(parameter) if norm.by_channel else parameter)
        self.stand_in(self.node.outputs[0], y)

    def stand_in(self, old: ir.Value, new: ir.Value) -> None:
        new.type, new.shape = old.type, old.shape
        self.here.replace(old, new)

    def output(self, index: int) -> ir.Value:
        """An output of the node, asked for if nobody has done so."""
        if len(self.node.outputs) <= index:
            self.node.resize_outputs(index + 1)
        for k, value in enumerate(self.node.outputs):
            value.name = value.name or (self.editor.unused(f"{self.node.name}/y{k}") if k == index else "")
        return self.node.outputs[index]

    def zero(self, value: ir.Value, index: int) -> ir.Value:
        """The zero point that an input of the node holds, or zero where it is left out."""
        point = self.node.inputs[index] if index < len(self.node.inputs) else None
        if point is not None and traits_of(self.node).stacked:
            shape = [0, *[1] * (self.mask.ndim - 2), -1]  # one a direction, or one a row of each direction
            return self.here.add("Reshape", point, self.here.constant(np.array(shape, dtype=np.int64)))
        if point is not None:
            return point
        dtype = value.dtype or _quantized_type(value)
        return self.here.constant(np.zeros((), dtype.numpy()))

    def per_channel(self, parameter: ir.Value) -> ir.Value:
        """A vector with one number a channel, shaped to broadcast."""
        shape = [1, -1] + [1] * (self.mask.ndim - 2)
        return self.here.add("Reshape", parameter, self.here.constant(np.array(shape, dtype=np.int64)))

    def mean(self, value: ir.Value) -> ir.Value:
        """The mean over the reduced axes of what stays: the mean of all, scaled."""
        axes = [int(a) for a in self.axes]
        if self.version >= 18:
            mean = self.here.add("ReduceMean", value, self.here.constant(np.array(axes, dtype=np.int64)))
        else:
            mean = self.here.add("ReduceMean", value, axes=axes)
        return self.scaled(mean)

    def scaled(self, mean: ir.Value) -> ir.Value:
        """A mean over all slots as one over those that stay."""
        return self.here.add("Mul", mean, self.here.constant(np.float64(1 / self.kept_share())))

    def double(self, value: ir.Value) -> ir.Value:
        """Statistics are taken in float64: of the few slots that may stay, the variance is lost to rounding."""
        return self.here.add("Cast", value, to=ir.DataType.DOUBLE)

    def single(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Back to the type that the graph computes in."""
        return self.here.add("Cast", value, to=like.dtype or ir.DataType.FLOAT)

    def where(self, value: ir.Value, fill: float) -> ir.Value:
        return self.here.add("Where", self.mask_for(value), value, self.number(fill, value))

    def mask_for(self, value: ir.Value) -> ir.Value:
        """The mask, repeated along dynamic axes (`batch·head`) to the length that they have in this run."""
        mask = self.here.constant(self.mask)
        if not self.periodic:
            return mask
        chosen = np.isin(np.arange(self.mask.ndim), self.periodic)
        lengths = self.here.add(
            "Div", self.here.add("Shape", value), self.here.constant(np.array(self.mask.shape, dtype=np.int64))
        )
        repeats = self.here.add(
            "Where", self.here.constant(chosen), lengths, self.here.constant(np.ones(self.mask.ndim, dtype=np.int64))
        )
        return self.here.add("Tile", mask, repeats)

    def number(self, number: float, like: ir.Value) -> ir.Value:
        """A scalar of the type of a value, which few graphs tell."""
        scalar = self.here.constant(np.float32(number))
        if like.dtype == ir.DataType.FLOAT or self.version < 15:
            return scalar
        return self.here.add("CastLike", scalar, like)


def _quantized_type(value: ir.Value) -> ir.DataType:
    """The type of a quantized value, from what made it: bytes, unless a type is known."""
    node = value.producer()
    if node is None or traits_of(node).quantizes or node.inputs[0] is None:
        return ir.DataType.UINT8
    return node.inputs[0].dtype or _quantized_type(node.inputs[0])
