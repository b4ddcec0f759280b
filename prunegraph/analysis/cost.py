"""What a graph costs: parameters and multiply-accumulates, before and after."""

from __future__ import annotations

import math

import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.sizes import axis_size
from prunegraph.analysis.solve import Solution

REFERENCE_TOKENS = 128
"""MACs of a model with a dynamic sequence are stated for one input of so many tokens."""


def count_parameters(graph: ir.Graph) -> int:
    """Numbers in the initializers of a graph, tables of integers and booleans left out."""
    skipped = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)
    return sum(
        value.const_value.size
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype not in skipped
    )


def count_macs(solution: Solution, lengths: Lengths, batch: Size, row: Size) -> tuple[int, int]:
    """Multiply-accumulates of all contractions, before and after, for a batch of one.

    Args:
        solution: The settled axes.
        lengths: What stays.
        batch: The lengths that the probes gave to the batch.
        row: The lengths that they gave to the sequence.
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
            before, after = before + old, after + new
    return before, after
