"""What is alike in all probes because it must be, and not because the lengths that were tried are alike.

`Max(0, 8 - length)` is 0 at 23 tokens and at 128, and 3 at 5; `Greater(length, 1000)` is false at both.  What takes one
entry out of a shape that varies is another thing: that entry is the length of one axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.arrays import Array

Held = Mapping[str, tuple[Array, ...]]


def certain(graph: ir.Graph, values: Held) -> dict[str, tuple[Array, ...]]:
    """What values held in the probes, without what is alike in all of them though it was computed from what varied.

    Args:
        graph: Sorted.
        values: What every stated value held in each probe.
    """
    doubtful: set[str] = set()
    for node in graph:
        operands = [value.name or "" for value in node.inputs if value is not None]
        if any(name in doubtful for name in operands) or _hides(node, operands, values):
            doubtful.update(value.name or "" for value in node.outputs)
    return {name: arrays for name, arrays in values.items() if name not in doubtful or not alike(arrays)}


def _hides(node: ir.Node, operands: list[str], values: Held) -> bool:
    """Whether a node computes something that does not vary from something that does."""
    traits = traits_of(node)
    if (
        traits.carries
        or traits.states_lengths
        or not any(name in values and not alike(values[name]) for name in operands)
    ):
        return False
    return any(alike(arrays) for value in node.outputs if (arrays := values.get(value.name or "")) is not None)


def alike(arrays: tuple[Array, ...]) -> bool:
    """Whether a value was the same in all probes."""
    return all(
        a.shape == arrays[0].shape and np.array_equal(a, arrays[0], equal_nan=a.dtype.kind == "f") for a in arrays
    )
