"""Literal targets: a Reshape says what it makes, where that is known, and computes nothing for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.solve import Solution
from prunegraph.runtime.edit import Editor


def literal_targets(graph: ir.Graph, solution: Solution, lengths: Lengths) -> None:
    """Replace the computed target of a Reshape by a literal one wherever axes tell it; chains of Shape go away.

    A static length is a number, the only dynamic one -1 (infer); of several, those that stay in their places are 0
    (copy), and one more may be -1.
    """
    editor = Editor(graph)
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
            node.replace_input_with(1, editor.constant(np.array(entries, dtype=np.int64), f"{node.name}/target"))
            node.attributes.pop("allowzero", None)


def _entries(before: Sequence[Axis], after: Sequence[Axis], lengths: Lengths) -> list[int] | None:
    entries = []
    for k, axis in enumerate(after):
        _, new = lengths.both(axis)
        if len(set(new)) == 1 and new[0] == 0:
            return None
        entries.append(new[0] if len(set(new)) == 1 else 0 if k < len(before) and before[k] == axis else -1)
    return stated(entries)


def stated(entries: list[int]) -> list[int] | None:
    """A target with 0 for lengths that are copied and -1 for unknown ones; None if more than one is unknown.

    The only length that is copied is inferred instead, as exporters have it: a DeiT's kernels took 3 % less time so on
    the CPU provider, which then manages buffers in another way.
    """
    if entries.count(-1) > 1:
        return None
    return [-1 if n == 0 else n for n in entries] if entries.count(0) == 1 and -1 not in entries else entries
