"""Inner values that the masked original and the slim graph both have, and which of them show a rewritten weight first.

Names are the map: a value keeps its name through Shrink and Cleanup as long as it holds the same numbers.  Where one is
gone (a chain of views that got shorter, parts that are computed as one again), what is computed from it is followed
down to the next values that both graphs have.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.bodies import is_end, is_entry
from prunegraph.analysis.read_weight import late, read_weight
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Array
from prunegraph.runtime.edit import Editor

FAR = 24
"""Nodes between a weight and the first value that both graphs have: more are not followed."""

LARGE = 1 << 16
"""Weights of so many bytes are not held a second time with other numbers."""

_INTEGERS = {ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING}
"""Types of lengths, positions and texts, which are no weights."""


def shared_values(masked: ir.Graph, slim: ir.Graph, solution: Solution) -> frozenset[str]:
    """Values that nodes of both graphs make, by name, of known axes; what is made of weights alone is none of them."""
    both = {value.name for value in _made(masked)} & {value.name for value in _made(slim)}
    return frozenset(name for name in both if name and name in solution.axes and name not in solution.weights)


def _made(graph: ir.Graph) -> Iterator[ir.Value]:
    """What somebody reads: statistics that a norm puts out for nobody are not those of the masked form."""
    values = (value for node in graph for value in node.outputs if value.name)
    return (value for value in values if value.uses() or value.is_graph_output())


def rewritten_weights(slim: ir.Graph, normalized: ir.Graph) -> list[str]:
    """Initializers of the slim graph that are not, number by number, those that were analysed."""
    return [
        name for name, value in slim.initializers.items() if _is_rewritten(value, normalized.initializers.get(name))
    ]


def _is_rewritten(new: ir.Value, old: ir.Value | None) -> bool:
    if new.const_value is None or new.const_value.dtype in _INTEGERS:
        return False
    if old is None or old.const_value is None:
        return True
    if new.const_value is old.const_value:
        return False
    if new.const_value.shape != old.const_value.shape:
        return True
    return not np.array_equal(read_weight(new.const_value), read_weight(old.const_value))


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Other numbers in place of those of a weight: what stays of it in another order, or other sizes of it.

    Attributes:
        axis: The axis along which they are rolled by one; None where every second number is made half as large again,
            and zeros become a tenth.
    """

    axis: int | None

    def of(self, array: Array) -> Array:
        """The numbers that stand in for those of a weight."""
        return _scaled(array) if self.axis is None else np.roll(array, 1, axis=self.axis)


def perturbation(array: Array, whole: Sequence[int] | None) -> Perturbation | None:
    """What makes other numbers of those of a weight; None where nothing does.

    Rolled along the first axis that was cut (the longest, where `whole`, its shape before, does not tell), scaled where
    that changes nothing.
    """
    axes: list[int] = []
    if array.ndim:
        cut = [k for k, n in enumerate(array.shape) if whole is not None and len(whole) == array.ndim and whole[k] != n]
        axes = [*cut, int(np.argmax(array.shape))]
    for axis in axes:
        if _varies(array, axis):
            return Perturbation(axis)
    if array.dtype.kind in "iu" or np.array_equal(_scaled(array), array):
        return None  # zero points, which some ops want as they are
    return Perturbation(None)


def _varies(array: Array, axis: int) -> bool:
    """Whether not all slices along an axis are alike; the first two mostly tell."""
    slices = np.moveaxis(array, axis, 0)
    return len(slices) > 1 and (bool((slices[0] != slices[1]).any()) or bool((slices[1:] != slices[:-1]).any()))


def _scaled(array: Array) -> Array:
    every_second = (np.arange(array.size) % 2 == 0).reshape(array.shape)
    wide = array.astype(np.float32)
    return np.where(every_second, np.where(wide == 0, 0.1, wide * 1.5), wide).astype(array.dtype)


@dataclass(frozen=True, slots=True)
class Shadow:
    """What one value would be if one weight held other numbers.

    Attributes:
        weight: The initializer.
        value: The first value that both graphs have and that depends on it.
        name: The value beside it that is made of the other numbers.
    """

    weight: str
    value: str
    name: str


def with_shadows(
    slim: ir.Model, weights: Mapping[str, Perturbation], shared: Collection[str]
) -> tuple[ir.Model, list[Shadow]]:
    """A copy that computes what every one of some weights is read into a second time, from other numbers.

    What the readers get besides is as it was, so that one run tells of every weight by itself.

    Args:
        slim: The slim model.
        weights: Initializer -> how other numbers are made of its own.
        shared: The values that both graphs have.
    """
    twin = slim.clone()
    editor = Editor(twin.graph)
    order = {node: k for k, node in enumerate(twin.graph)}
    shadows: list[Shadow] = []
    for name, other_numbers in weights.items():
        weight = twin.graph.initializers[name]
        other = _other_weight(editor, weight, other_numbers, order)
        shadows += [Shadow(name, *pair) for pair in _follow(editor, weight, other, order, shared)]
    return twin, shadows


def _other_weight(editor: Editor, weight: ir.Value, other: Perturbation, order: Mapping[ir.Node, int]) -> ir.Value:
    """Other numbers: a constant, or where that would take memory something that a run makes and drops again."""
    tensor = weight.const_value
    assert tensor is not None
    readers = [node for node in weight.consumers() if node in order]
    if other.axis is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < LARGE or not readers:
        numbers = late(lambda: other.of(read_weight(tensor)), tensor.dtype, tensor.shape.numpy(), weight.name)
        return editor.constant(numbers, f"{weight.name}/perturbed")
    here = editor.at(min(readers, key=order.__getitem__)).before()
    rolled = np.roll(np.arange(tensor.shape.numpy()[other.axis], dtype=np.int64), 1)
    return here.add("Gather", weight, here.constant(rolled), like=weight, axis=other.axis)


def _follow(
    editor: Editor, weight: ir.Value, other: ir.Value, order: dict[ir.Node, int], shared: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Write the readers of a weight a second time, in place, down to the first values that both graphs have."""
    twins = {weight: other}
    waiting = [(order[node], node) for node in dict.fromkeys(weight.consumers()) if node in order]
    heapq.heapify(waiting)
    done: set[ir.Node] = set()
    while waiting and len(done) < FAR:
        _, node = heapq.heappop(waiting)
        has_body = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        if node in done or has_body or is_end(node) or is_entry(node):
            continue
        done.add(node)
        operands = [None if value is None else twins.get(value, value) for value in node.inputs]
        twin = editor.at(node).after().clone(node, operands, "perturbed")
        for old, new in zip(node.outputs, twin.outputs, strict=True):
            if not old.name:
                continue
            if old.name in shared:
                yield old.name, new.name or ""
            else:
                twins[old] = new
                for reader in old.consumers():
                    if reader in order:
                        heapq.heappush(waiting, (order[reader], reader))
