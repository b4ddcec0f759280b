"""`x[:, a:b] = y`: exporters write it as a ScatterND with the positions of a whole block; it is a Concat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.relations import IntArray
from prunegraph.passes.rewrite.constants import add_constant

Block = tuple[tuple[int, int], ...]
"""For every leading axis of a tensor from where to where a block of it reaches."""

Shapes = dict[str, tuple[Size, ...]]
Part = dict[int, tuple[int, int]]
"""By axis from where to where it reaches; it reaches all along every other axis."""


def block_of(positions: IntArray) -> Block | None:
    """The block whose positions `[n0, n1, …, axes]` an array holds, in order; None where it holds something else."""
    depth = positions.shape[-1] if positions.ndim else 0
    if not positions.size or positions.ndim != depth + 1:
        return None
    firsts = positions.reshape(-1, depth)[0]
    if (firsts < 0).any():  # counted from the end
        return None
    for axis, (first, length) in enumerate(zip(firsts, positions.shape, strict=False)):
        line = (first + np.arange(length)).reshape([-1 if k == axis else 1 for k in range(depth)])
        if not np.array_equal(positions[..., axis], np.broadcast_to(line, positions.shape[:-1])):
            return None
    return tuple((int(first), int(first) + n) for first, n in zip(firsts, positions.shape, strict=False))


def assignment(graph: ir.Graph, node: ir.Node, blocks: Sequence[Block], shapes: Shapes) -> ir.Node | None:
    """A node that stands for a ScatterND which writes one block; what it needs is put before the ScatterND.

    Args:
        graph: Gets slices of what stays.
        node: The ScatterND.
        blocks: What it writes in every probe.
        shapes: By name of a value; those made here are added.

    Returns:
        A new node that is in no graph yet; None where the block is another one from run to run.
    """
    data, updates = node.inputs[0], node.inputs[2]
    assert data is not None and updates is not None
    shape = shapes.get(data.name or "", ())
    part = _part(blocks, shape) if node.attributes.get_string("reduction", "none") == "none" else None
    return None if part is None else _assigned(graph, node, data, updates, part, shapes)


def _assigned(
    graph: ir.Graph, node: ir.Node, data: ir.Value, updates: ir.Value, written: Part, shapes: Shapes
) -> ir.Node:
    """What comes before and after the block along its first axis, put together with the block itself."""
    if not written:
        return ir.node("Identity", [updates], num_outputs=1)
    (axis, (first, last)), *rest = written.items()
    shape = shapes[data.name or ""]

    def cut(name: str, begin: int, end: int) -> ir.Value:
        stem = f"{node.name}/{name}{axis}"
        bounds = [add_constant(graph, f"{stem}/{what}", np.array([n])) for what, n in (("begin", begin), ("end", end))]
        axes = add_constant(graph, f"{stem}/axes", np.array([axis]))
        piece = ir.node("Slice", [data, *bounds, axes], num_outputs=1, name=stem)
        out = piece.outputs[0]
        out.name, out.type = f"{stem}/out", data.type
        shapes[out.name] = tuple((end - begin,) * len(n) if k == axis else n for k, n in enumerate(shape))
        graph.insert_before(node, piece)
        return out

    new = updates
    if rest:
        inner = _assigned(graph, node, cut("within", first, last), updates, dict(rest), shapes)
        inner.name = f"{node.name}/within{axis}/plain"
        new = inner.outputs[0]
        new.name, new.type = f"{inner.name}/out", updates.type
        shapes[new.name] = shapes[f"{node.name}/within{axis}/out"]
        graph.insert_before(node, inner)
    before = [cut("before", 0, first)] if first else []
    after = [cut("after", last, shape[axis][0])] if last < shape[axis][0] else []
    return ir.node("Concat", [*before, new, *after], {"axis": axis}, num_outputs=1)


def _part(blocks: Sequence[Block], shape: tuple[Size, ...]) -> Part | None:
    """The same part of axes of static length in every probe."""
    if any(len(block) > len(shape) for block in blocks):
        return None
    parts = [
        {axis: reach for axis, reach in enumerate(block) if reach != (0, shape[axis][probe])}
        for probe, block in enumerate(blocks)
    ]
    static = all(len(set(shape[axis])) == 1 for axis in parts[0])
    return parts[0] if static and all(part == parts[0] for part in parts) else None
