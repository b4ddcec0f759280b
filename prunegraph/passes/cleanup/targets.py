"""Literal targets: a Reshape says what it makes, where that is known, and computes nothing for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.solve import Solution
from prunegraph.passes.constants import add_constant


def literal_targets(graph: ir.Graph, solution: Solution, lengths: Lengths) -> None:
    """Replace the computed target of a Reshape by a literal one wherever axes tell it; chains of Shape go away.

    A static length is a number, a dynamic one that stays in its place a 0 (copy), and one more may be -1 (infer).
    """
    for node in graph:
        if node.op_type != "Reshape" or node.domain or len(node.inputs) < 2:
            continue
        data, target, output = node.inputs[0], node.inputs[1], node.outputs[0]
        if (
            data is None
            or target is None
            or target.is_initializer()
            or not {data.name, output.name} <= solution.axes.keys()
        ):
            continue
        entries = _entries(solution.resolve(data.name or ""), solution.resolve(output.name or ""), lengths)
        if entries is not None:
            node.replace_input_with(1, add_constant(graph, f"{node.name}/target", np.array(entries, dtype=np.int64)))
            node.attributes.pop("allowzero", None)


def _entries(before: Sequence[Axis], after: Sequence[Axis], lengths: Lengths) -> list[int] | None:
    entries = []
    for k, axis in enumerate(after):
        _, new = lengths.both(axis)
        if len(set(new)) == 1 and new[0] == 0:
            return None
        entries.append(new[0] if len(set(new)) == 1 else 0 if k < len(before) and before[k] == axis else -1)
    return entries if entries.count(-1) <= 1 else None
