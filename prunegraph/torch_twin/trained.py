"""Which constants of a model are weights to train; the others (tables, masks, statistics, numbers) stay as they are.

A file does not say which of its constants were parameters.  What tells them apart is their numbers and how they are
used: a weight meets activations, or is a table that indices look up; a frequency or a slope meets positions only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.torch_twin.dtypes import is_float
from prunegraph.torch_twin.hosts import constant_of, is_number
from prunegraph.torch_twin.registry import torch_op_for

Floats = npt.NDArray[np.float32]

HUGE = 1e4
"""Additive masks hold numbers from here on: -10000, -65504, -1e9, -inf."""

FEW = 64
"""Fewer numbers than these may add up by chance."""


def trained(model: ir.Model) -> set[ir.Value]:
    """The initializers that become parameters.

    These are floats, except: single numbers that are not an operand such as a bias; running statistics and
    quantization scales; masks (huge or infinite numbers, or a matrix of two levels); tables of cosines and sines;
    and what meets nothing but positions and lengths (rotary frequencies, ALiBi's slopes).
    """
    values = [value for graph in model.graphs() for value in graph.initializers.values() if is_float(value.dtype)]
    candidates = [v for v in values if v.const_value is not None and _may_be(v) and not _is_mask(v)]
    rotations = _rotations(candidates)
    reached = _reached(model.graph)
    nested = {v for v in candidates if any(node.graph is not model.graph for node, _ in v.uses())}
    return {v for v in candidates if v not in rotations and v in reached | nested}


def _may_be(value: ir.Value) -> bool:
    """Whether some op uses it as it uses a weight."""
    assert value.const_value is not None
    uses = value.uses()
    if value.const_value.size > 1:
        fixed = [k in traits_of(node).fixed for node, k in uses]
        return not (fixed and all(fixed))
    return any(k in traits_of(node).parameters or _is_bias(value, node) for node, k in uses)


def _is_bias(value: ir.Value, node: ir.Node) -> bool:
    """Whether a node adds it to what a contraction made."""
    assert value.const_value is not None
    others = [v.producer() for v in node.inputs if v is not None and v is not value]
    added_to_product = any(producer is not None and traits_of(producer).parameters for producer in others)
    return node.op_type == "Add" and len(value.const_value.shape) > 0 and added_to_product


def _is_mask(value: ir.Value) -> bool:
    """Numbers out of any weight's range, or a matrix of two levels that nothing is multiplied with."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) >= HUGE:
        return True
    if sum(n > 1 for n in array.shape) < 2 or len(np.unique(array.reshape(-1)[:64])) > 2:
        return False
    if any(traits_of(node).contracts for node, _ in value.uses()):
        return False  # born as an identity
    return len(np.unique(array)) == 2  # a uniform one is a weight as it was born


def _rotations(values: Iterable[ir.Value]) -> set[ir.Value]:
    """Tables of cosines and of sines, apart or side by side: their squares add up to the same everywhere."""
    alike: dict[tuple[int, ...], list[tuple[ir.Value, Floats]]] = defaultdict(list)
    tables: set[ir.Value] = set()
    for value in values:
        assert value.const_value is not None
        shape = tuple(int(n) for n in value.const_value.shape.numpy())
        if sum(n > 1 for n in shape) < 2 or shape[-1] < 2 or value.const_value.size < FEW:
            continue
        array = value.const_value.numpy().reshape(-1, shape[-1])
        half = shape[-1] // 2
        if shape[-1] % 2 == 0 and _on_circle(array[:, :half], array[:, half:]):
            tables.add(value)
            continue
        for other, twin in alike[shape]:
            if _on_circle(array, twin):
                tables |= {value, other}
        alike[shape].append((value, array))
    return tables


def _on_circle(a: Floats, b: Floats) -> bool:
    """Whether `a² + b²` is one number, of vectors that are not all alike; a few rows tell most apart."""
    for rows in (slice(0, 4), slice(None)):
        squares = a[rows].astype(np.float64) ** 2 + b[rows].astype(np.float64) ** 2
        radius = squares.flat[0]
        if radius == 0 or np.abs(squares - radius).max() > 1e-3 * radius:
            return False
    return not np.allclose(a, a.flat[0])


def _reached(graph: ir.Graph) -> set[ir.Value]:
    """The constants that meet an activation, directly or after ops on constants alone."""
    sources: dict[ir.Value, frozenset[ir.Value]] = {}
    """By value that follows from constants (and lengths) alone: from which."""
    idle: set[ir.Value] = {value for value in graph.inputs if not is_float(value.dtype)}
    lengths: set[ir.Value] = set()
    reached: set[ir.Value] = set()
    for node in graph:
        if constant_of(node.outputs[0]) is not None:
            continue
        stated = _stated(node)
        inputs = [v for v in node.inputs if v is not None]
        operands = [v for k, v in enumerate(node.inputs) if v is not None and k not in stated and v not in lengths]
        constants = [v for v in operands if v in sources or constant_of(v) is not None]
        from_constants = frozenset().union(*(sources.get(v, frozenset({v})) for v in constants))
        if traits_of(node).counts:
            idle.update(node.outputs)
        elif traits_of(node).states_lengths or (
            lengths & set(inputs) and all(v in lengths or is_number(v) for v in inputs)
        ):
            lengths.update(node.outputs)
        elif operands and len(constants) == len(operands):
            sources.update(dict.fromkeys(node.outputs, from_constants))
        elif (
            not _has_blocks(node)
            and all(v in idle or v in constants for v in operands)
            and not _looks_up(node, from_constants)
        ):
            idle.update(node.outputs)
        else:
            reached |= from_constants
    return reached


def _stated(node: ir.Node) -> frozenset[int]:
    op = torch_op_for(node.domain, node.op_type)
    return op.lengths if op is not None else frozenset()


def _has_blocks(node: ir.Node) -> bool:
    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def _looks_up(node: ir.Node, constants: Iterable[ir.Value]) -> bool:
    """Whether indices choose rows of a table, by a Gather, a fused op, or a product with ones and zeros."""
    if node.domain not in ("", "ai.onnx"):
        return True
    traits = traits_of(node)
    return bool(traits.looks_up or traits.contracts) and any(map(_is_matrix, constants))


def _is_matrix(value: ir.Value) -> bool:
    tensor = constant_of(value)
    return tensor is not None and is_float(tensor.dtype) and sum(int(n) > 1 for n in tensor.shape.numpy()) > 1
