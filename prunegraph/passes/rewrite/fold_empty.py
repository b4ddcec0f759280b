"""Propagate constants from what a removed sub-block made: a sum over no unit is zero, and what follows is constant.

What a contraction makes of nothing is a constant, and so is what follows until another activation joins in: `0 + bias`
is the bias, `x + bias` keeps the shape of `x`.  The constants are computed by ONNX Runtime at the sizes of the probes,
one node at a time, and kept at length one along every axis on which they do not vary; what varies with the size of the
input cannot be kept.  No op is known by name but those that broadcast.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.relations import Reduction
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Array
from prunegraph.runtime.edit import Editor
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.run_node import evaluate


class CannotFold(Exception):
    """A node cannot do with what is left."""


class ConstantPropagation:
    """Walks through a graph once and replaces what has become constant."""

    def __init__(
        self,
        graph: ir.Graph,
        nodes: list[ir.Node],
        solution: Solution,
        lengths: Lengths,
        whole: frozenset[int],
        facts: Facts,
    ) -> None:
        self.graph, self.solution, self.lengths, self.whole, self.facts = graph, solution, lengths, whole, facts
        self.editor = Editor(graph)
        self.position = {node: k for k, node in enumerate(nodes)}
        self.known: dict[ir.Value, Array] = {}  # of full rank, length one along every axis on which it does not vary
        self.origin: dict[ir.Value, frozenset[int]] = {}
        self.stated: dict[ir.Value, ir.Value] = {}
        self.stuck: list[tuple[ir.Node, str, frozenset[int]]] = []
        self.summed: dict[tuple[int, int], set[int]] = {}
        self.zero: dict[tuple[int, int], int] = {}
        for site in solution.reduces:
            if site.kind is Reduction.SUM or self._beside_nothing(nodes[site.node]):
                self.summed.setdefault((site.node, site.index), set()).add(site.axis)
            if site.zero is not None:
                self.zero[site.node, site.index] = site.zero
        for contraction in solution.contractions():
            for operand in contraction.operands:
                if operand.summed:
                    self.summed.setdefault((contraction.node, operand.index), set()).update(operand.summed)

    def fold(self) -> None:
        """Every node in turn; what nothing needs afterwards stays in the graph, unused."""
        for node in list(self.graph):
            touched = [v for v in node.inputs if v is not None and (v in self.known or self.empty(v))]
            if not touched or all(self.empty(value) for value in node.outputs if value.name):
                continue
            dims = frozenset().union(*(self.origin.get(v) or self.dims(v) & self.whole for v in touched))
            try:
                self._node(node, dims)
            except (CannotFold, CannotRun) as reason:
                self.stuck.append((node, str(reason), dims))
        stays = any(not self.empty(value) for value in self.graph.outputs)
        for value in self.graph.outputs:
            if value in self.known or (self.empty(value) and not stays):
                dims = self.origin.get(value) or self.dims(value) & self.whole
                producer = value.producer()
                assert producer is not None
                self.stuck.append((producer, f"the output {value.name} of the graph would be constant", dims))

    def refused(self, left: frozenset[int]) -> dict[int, str]:
        """Dims that should be gone and are not, each with a reason; `left` are those that something holds."""
        reasons: dict[int, str] = {}
        for node, why, dims in self.stuck:
            if node.graph is not None:  # else nothing needed it
                for dim in dims:
                    reasons.setdefault(dim, f"{node.op_type} {node.name}: {why}")
        for dim in self.whole & left:
            reasons.setdefault(dim, "a part of something that stays holds it")
        return reasons

    def dims(self, value: ir.Value) -> frozenset[int]:
        """The Dims that a value holds."""
        if value.name not in self.solution.axes:
            return frozenset()
        return frozenset(dim for axis in self.solution.resolve(value.name or "") for dim in axis.dims())

    def empty(self, value: ir.Value) -> bool:
        """Whether nothing is left of a value."""
        return bool(self._lost(value))

    def _lost(self, value: ir.Value) -> set[int]:
        """Axes of which nothing is left."""
        if not self.dims(value) & self.whole:
            return set()
        lengths = [self.lengths.both(axis) for axis in self.solution.resolve(value.name or "")]
        return {k for k, (old, new) in enumerate(lengths) if any(old) and not any(new)}

    # ---- one node ----------------------------------------------------------------------------------------------

    def _node(self, node: ir.Node, dims: frozenset[int]) -> None:
        operands = [self._operand(node, index) for index in range(len(node.inputs))]
        if all(value is None or operand is not None for value, operand in zip(node.inputs, operands, strict=True)):
            self._fold(node, operands, dims)
            return
        if any(value is not None and self.empty(value) for value in node.inputs):
            raise CannotFold("it takes what would be empty together with something else")
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise CannotFold("it has a body")
        for index, value in enumerate(node.inputs):
            if value is not None and value in self.known:
                self._join(node, index, value)
        self._drop_zero(node)

    def _operand(self, node: ir.Node, index: int) -> list[Array] | None:
        """An operand as every probe has it, None where it depends on the input of the model."""
        value = node.inputs[index]
        if value is None:
            return None
        if value in self.known:
            return [np.broadcast_to(self.known[value], shape) for shape in self._shapes(value)]
        if self.empty(value):
            if value.name in self.solution.weights and any(v is not None and self._zeroed(v) for v in node.inputs):
                return self._every(self._weight(value))  # the other operand is zero
            if not self._lost(value) <= self.summed.get((self.position.get(node, -1), index), set()):
                raise CannotFold("it makes something else than a sum of what would be empty")
            nothing = self._nothing(node, index, value)
            return [np.broadcast_to(nothing, shape) for shape in self._shapes(value)]
        if (values := self.facts.integers.get(value.name or "")) is not None:
            return list(values)
        return self._every(self._weight(value))

    def _every(self, array: Array | None) -> list[Array] | None:
        return None if array is None else [array] * self.facts.probes

    def _zeroed(self, value: ir.Value) -> bool:
        return value.name not in self.solution.weights and self.empty(value)

    def _beside_nothing(self, node: ir.Node) -> bool:
        """Whether a node takes a statistic of values that it puts out too: of none, any will do."""
        return any(self.empty(value) for value in node.outputs)

    def _nothing(self, node: ir.Node, index: int, value: ir.Value) -> Array:
        """What adds nothing: zero, or a zero point."""
        place = self.zero.get((self.position.get(node, -1), index))
        point = node.inputs[place] if place is not None and place < len(node.inputs) else None
        if point is None:
            return np.zeros((), self._dtype(node, value))
        array = self.known[point] if point in self.known else self._weight(point)
        if array is None or array.size != 1:
            raise CannotFold("its zero point is not known")
        return array.reshape(())

    def _weight(self, value: ir.Value) -> Array | None:
        """A weight, or what is made of weights alone."""
        if value.const_value is not None and value.is_initializer():
            return value.const_value.numpy()
        node = value.producer()
        if node is None or value.name not in self.solution.weights or len(node.outputs) > 1:
            return None
        operands = [None if v is None else self._weight(v) for v in node.inputs]
        if any(v is not None and o is None for v, o in zip(node.inputs, operands, strict=True)):
            return None
        return evaluate(self.graph, node, [operands])[0][0]

    def _shapes(self, value: ir.Value) -> list[tuple[int, ...]]:
        sizes = self.facts.shapes.get(value.name or "")
        if sizes is None:
            raise CannotFold(f"the shape of {value.name} is not known")
        return [tuple(size[probe] for size in sizes) for probe in range(self.facts.probes)]

    def _dtype(self, node: ir.Node, value: ir.Value) -> np.dtype[np.generic]:
        """The type of a value, or, where the graph does not tell, of a weight that the node has beside it."""
        beside = (v.dtype for v in node.inputs if v is not None and v.is_initializer())
        dtypes = [value.dtype, *(d for d in beside if d is not None and d.is_floating_point()), ir.DataType.FLOAT]
        return next(np.dtype(dtype.numpy()) for dtype in dtypes if dtype is not None)

    def _fold(self, node: ir.Node, operands: list[list[Array] | None], dims: frozenset[int]) -> None:
        runs = [[None if o is None else o[probe] for o in operands] for probe in range(self.facts.probes)]
        results = evaluate(self.graph, node, runs)
        for k, value in enumerate(node.outputs):
            arrays = [_small(run[k]) for run in results]
            if any(a.shape != arrays[0].shape or not _alike(a, arrays[0]) for a in arrays):
                raise CannotFold("what it makes of nothing varies with the size of the input")
            if not np.isfinite(arrays[0].astype(np.float64)).all():
                raise CannotFold("what it makes of nothing is not finite")
            self.known[value] = arrays[0]
            self.origin[value] = dims

    def _join(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Let a node that goes on take a constant; its output must not lose its shape by that."""
        if value not in self.stated:
            self.stated[value] = self.editor.constant(self.known[value], f"{value.name}/constant")
        constant = self.stated[value]
        if not self._broadcasts(node):
            constant = self._expanded(node, value, constant)
        node.replace_input_with(index, constant)

    def _broadcasts(self, node: ir.Node) -> bool:
        if not traits_of(node).broadcasts:
            return False
        target = self._shapes(node.outputs[0])
        others = [self._smallest(value) for value in node.inputs if value is not None]
        return all(np.broadcast_shapes(*(o[probe] for o in others)) == shape for probe, shape in enumerate(target))

    def _smallest(self, value: ir.Value) -> list[tuple[int, ...]]:
        if value in self.known:
            return [self.known[value].shape] * self.facts.probes
        if value.is_initializer() and value.shape is not None:
            return [tuple(value.shape.numpy())] * self.facts.probes
        return self._shapes(value)

    def _expanded(self, node: ir.Node, value: ir.Value, constant: ir.Value) -> ir.Value:
        """The constant at its full shape: a static one, or that of an operand beside it that has the same axes."""
        shapes = self._shapes(value)
        name = f"{value.name}/expand"
        if len(set(shapes)) == 1:
            shape = self.editor.constant(np.array(shapes[0], dtype=np.int64), f"{name}/shape")
        else:
            shape = self._shape_beside(node, value, name)
        expanded = self.editor.at(node).before().add("Expand", constant, shape, name=name)
        expanded.type = constant.type
        return expanded

    def _shape_beside(self, node: ir.Node, value: ir.Value, name: str) -> ir.Value:
        """The shape of a value: dynamic lengths from an operand that has these axes in the same places."""
        axes = self.solution.resolve(value.name or "")
        both = [self.lengths.both(axis)[1] for axis in axes]
        dynamic = [k for k, size in enumerate(both) if len(set(size)) > 1]
        for other in node.inputs:
            if other is None or other.name not in self.solution.axes or other.is_initializer() or other in self.known:
                continue
            beside = self.solution.resolve(other.name or "")
            if len(beside) == len(axes) and all(beside[k] == axes[k] for k in dynamic):
                here = self.editor.at(node).before()
                shape = here.add("Shape", other, name=f"{name}/beside")
                static = here.constant(np.array([size[0] for size in both], np.int64), f"{name}/static")
                which = here.constant(np.isin(np.arange(len(axes)), dynamic), f"{name}/dynamic")
                return here.add("Where", which, shape, static, name=f"{name}/shape")
        raise CannotFold("the constant left over would lose its shape")

    def _drop_zero(self, node: ir.Node) -> None:
        """`x + 0` is x; only where the output of the graph is meant, its name has to stay."""
        if node.op_type != "Add" or node.domain not in ("", "ai.onnx") or node.outputs[0] in self.graph.outputs:
            return
        for constant, other in (node.inputs, node.inputs[::-1]):
            tensor = constant.const_value if constant is not None else None
            if other is not None and tensor is not None and constant in self.stated.values():
                if not np.any(tensor.numpy()) and self._shapes(other) == self._shapes(node.outputs[0]):
                    self.editor.replace(node.outputs[0], other, rename=False)
                    return


def _small(array: Array) -> Array:
    """Length one along every axis on which an array does not vary."""
    for axis in range(array.ndim):
        first = array.take([0], axis=axis)
        if array.shape[axis] > 1 and _alike(np.broadcast_to(first, array.shape), array):
            array = first
    return np.array(array, order="C")


def _alike(a: Array, b: Array) -> bool:
    """Equal, or to rounding: the same sum at another place may be taken in another order."""
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    largest = float(np.max(np.abs(b), initial=0.0))
    return bool(np.all(np.abs(a - b) <= 4 * np.finfo(a.dtype).eps * largest))
