"""What a graph costs: parameters and multiply-accumulates, before and after."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from prunegraph.analysis.axes import Axis, Size
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.slots import axis_size
from prunegraph.analysis.solve import Solution

REFERENCE_TOKENS = 128
"""MACs of a model with a dynamic sequence are stated for one input of so many tokens."""


_NO_PARAMETERS = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)


def count_parameters(graph: ir.Graph) -> int:
    """Numbers in the initializers of a graph, tables of integers and booleans left out."""
    return sum(
        value.const_value.size
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype not in _NO_PARAMETERS
    )


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
                held = whole if factor in leaves else 0
            else:
                whole, held = _lengths(factor, leaves, solution)
            size *= whole
            beside *= whole - held
        length += size
        holding += size - beside
    return length, holding


def count_macs(
    solution: Solution, lengths: Lengths, batch: Size, row: Size, gone: Collection[int] = ()
) -> tuple[int, int]:
    """Multiply-accumulates of all contractions, before and after, for a batch of one.

    Args:
        solution: The settled axes.
        lengths: What stays.
        batch: The lengths that the probes gave to the batch.
        row: The lengths that they gave to the sequence.
        gone: Positions of nodes that are not there any more afterwards.
    """
    reference = {batch: 1, row: REFERENCE_TOKENS}

    def at_reference(old: Size) -> int:
        return reference.get(old, old[0])

    before = after = 0
    for k, rule in enumerate(solution.rules):
        for contraction in rule.contractions:
            axes = [solution.space.resolve(solution.dim_of(k, expr)) for expr in contraction.macs]
            old = math.prod(axis_size(axis, lambda d: (at_reference(solution.dim_size(d)),), 1)[0] for axis in axes)
            new = math.prod(axis_size(axis, lambda d: (at_reference(lengths.new_dim(d)),), 1)[0] for axis in axes)
            before, after = before + old, after + (0 if k in gone else new)
    return before, after
