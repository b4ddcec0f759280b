"""`x[:, a:b] = y`: exporters write it as a ScatterND with the positions of a whole block; it is a Concat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.relations import IntArray
from prunegraph.runtime.edit import Editor

IndexBlock = tuple[tuple[int, int], ...]
"""For every leading axis of a tensor from where to where a block of it reaches."""

Shapes = dict[str, tuple[Size, ...]]
Part = dict[int, tuple[int, int]]
"""By axis from where to where it reaches; it reaches all along every other axis."""


def block_of(positions: IntArray) -> IndexBlock | None:
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


def concat_of_blocks(editor: Editor, node: ir.Node, blocks: Sequence[IndexBlock], shapes: Shapes) -> ir.Value | None:
    """What a ScatterND makes that writes one block, made by Slice and Concat in front of it.

    Args:
        editor: Of the graph; slices of what stays are added.
        node: The ScatterND.
        blocks: What it writes in every probe.
        shapes: By name of a value; those made here are added.

    Returns:
        The same values; None where the block is another one from run to run.
    """
    data, updates = node.inputs[0], node.inputs[2]
    assert data is not None and updates is not None
    shape = shapes.get(data.name or "", ())
    part = _part(blocks, shape) if node.attributes.get_string("reduction", "none") == "none" else None
    return None if part is None else _assigned(editor, node, data, updates, part, shapes, f"{node.name}/plain")


def _assigned(
    editor: Editor, node: ir.Node, data: ir.Value, updates: ir.Value, written: Part, shapes: Shapes, name: str
) -> ir.Value:
    """What comes before and after the block along its first axis, put together with the block itself."""
    here = editor.at(node).before()
    if not written:
        return here.add("Identity", updates, name=name)
    (axis, (first, last)), *rest = written.items()
    shape = shapes[data.name or ""]

    def cut(part: str, begin: int, end: int) -> ir.Value:
        stem = f"{node.name}/{part}{axis}"
        operands = {"begin": begin, "end": end, "axes": axis}
        constants = [here.constant(np.array([n]), f"{stem}/{operand}") for operand, n in operands.items()]
        piece = here.add("Slice", data, *constants, name=stem)
        piece.type = data.type
        shapes[piece.name or ""] = tuple((end - begin,) * len(n) if k == axis else n for k, n in enumerate(shape))
        return piece

    new = updates
    if rest:
        within = cut("within", first, last)
        new = _assigned(editor, node, within, updates, dict(rest), shapes, f"{node.name}/within{axis}/plain")
        new.type = updates.type
        shapes[new.name or ""] = shapes[within.name or ""]
    before = [cut("before", 0, first)] if first else []
    after = [cut("after", last, shape[axis][0])] if last < shape[axis][0] else []
    return here.add("Concat", *before, new, *after, axis=axis, name=name)


def _part(blocks: Sequence[IndexBlock], shape: tuple[Size, ...]) -> Part | None:
    """The same part of axes of static length in every probe."""
    if any(len(block) > len(shape) for block in blocks):
        return None
    parts = [
        {axis: reach for axis, reach in enumerate(block) if reach != (0, shape[axis][probe])}
        for probe, block in enumerate(blocks)
    ]
    static = all(len(set(shape[axis])) == 1 for axis in parts[0])
    return parts[0] if static and all(part == parts[0] for part in parts) else None
