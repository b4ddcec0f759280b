"""Count parameters and multiply-accumulates (MACs) of a graph, before and after pruning."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import onnx_ir as ir

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.solve import Solution

_NO_PARAMETERS = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)


def count_parameters(graph: ir.Graph) -> int:
    """Numbers in the weights of a graph and of its bodies, be they initializers or Constant nodes.

    Tables of int64 and of booleans are no weights: they state lengths and positions.
    """
    return sum(size for dtype, size in _stored(graph) if dtype not in _NO_PARAMETERS)


def _stored(graph: ir.Graph) -> Iterator[tuple[ir.DataType, int]]:
    """Type and size of every tensor that a graph and its bodies hold."""
    for each in (graph, *graph.subgraphs()):
        for value in each.initializers.values():
            if value.const_value is not None:
                yield value.const_value.dtype, value.const_value.size
        for node in each:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                for attribute in node.attributes.values():
                    yield from _constant(attribute)


def _constant(attribute: ir.Attr) -> Iterator[tuple[ir.DataType, int]]:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            yield attribute.as_tensor().dtype, attribute.as_tensor().size
        case ir.AttributeType.FLOAT:
            yield ir.DataType.FLOAT, 1
        case ir.AttributeType.FLOATS:
            yield ir.DataType.FLOAT, len(attribute.as_floats())


def count_numbers(graph: ir.Graph, solution: Solution, lengths: Lengths) -> tuple[tuple[int, int], tuple[float, float]]:
    """Parameters and bytes of the initializers of a graph, each before and after."""
    params, size = [0, 0], [0.0, 0.0]
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or name not in solution.axes:
            continue
        both = [lengths.both(axis) for axis in solution.resolve(name)]
        old, new = math.prod(before[0] for before, _ in both), math.prod(after[0] for _, after in both)
        size = [size[0] + tensor.nbytes, size[1] + tensor.nbytes * new / max(old, 1)]
        if tensor.dtype not in _NO_PARAMETERS:
            params = [params[0] + old, params[1] + new]
    return (params[0], params[1]), (size[0], size[1])


def numbers_held(solution: Solution, weight: str, leaves: Collection[int]) -> int:
    """How many numbers of a weight lie on a slot of any of these leaves, each counted once."""
    total, beside = 1, 1
    for axis in solution.resolve(weight):
        length, holding = _lengths(axis, leaves, solution)
        total *= length
        beside *= length - holding
    return total - beside


def _lengths(axis: Axis, leaves: Collection[int], solution: Solution) -> tuple[int, int]:
    """The length of an axis, and how much of it lies on a slot of a leaf."""
    length = holding = 0
    for term in axis.terms:
        size, beside = 1, 1
        for factor in term:
            if isinstance(factor, int):
                whole = solution.dim_size(factor)[0]
                kept = whole if factor in leaves else 0
            else:
                whole, kept = _lengths(factor, leaves, solution)
            size *= whole
            beside *= whole - kept
        length += size
        holding += size - beside
    return length, holding


def count_macs(solution: Solution, lengths: Lengths, gone: Collection[int] = ()) -> tuple[int, int]:
    """Multiply-accumulates of all contractions, before and after, at the sizes of the first probe.

    Args:
        solution: The settled axes.
        lengths: What stays.
        gone: Positions of nodes that are not there any more afterwards.
    """
    before = after = 0
    for site in solution.contractions():
        both = [lengths.both(axis) for axis in site.macs]
        old, new = math.prod(old[0] for old, _ in both), math.prod(new[0] for _, new in both)
        before, after = before + old, after + (0 if site.node in gone else new)
    return before, after
