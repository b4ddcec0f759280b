"""`x[:, a:b] = y`: exporters write it as a ScatterND with the positions of a whole block; it is a Concat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.passes.constants import add_constant

Indices = tuple[npt.NDArray[np.int64], ...]
"""What every probe saw."""

Shapes = dict[str, tuple[Size, ...]]
Block = dict[int, tuple[int, int]]
"""By axis from where to where it reaches; it reaches all along every other axis."""


def assignment(graph: ir.Graph, node: ir.Node, indices: Indices, shapes: Shapes) -> ir.Node | None:
    """A node that stands for a ScatterND which writes one block; what it needs is put before the ScatterND.

    Args:
        graph: Gets slices of what stays.
        node: The ScatterND.
        indices: What its indices held in every probe.
        shapes: By name of a value; those made here are added.

    Returns:
        A new node that is in no graph yet; None where more or less than one block is written.
    """
    data, updates = node.inputs[0], node.inputs[2]
    assert data is not None and updates is not None
    shape = shapes.get(data.name or "", ())
    block = _written(indices, shape) if node.attributes.get_string("reduction", "none") == "none" else None
    return None if block is None else _assigned(graph, node, data, updates, block, shapes)


def _assigned(
    graph: ir.Graph, node: ir.Node, data: ir.Value, updates: ir.Value, block: Block, shapes: Shapes
) -> ir.Node:
    """What comes before and after the block along its first axis, put together with the block itself."""
    if not block:
        return ir.node("Identity", [updates], num_outputs=1)
    (axis, (first, last)), *rest = block.items()
    shape = shapes[data.name or ""]

    def part(name: str, begin: int, end: int) -> ir.Value:
        stem = f"{node.name}/{name}{axis}"
        bounds = [add_constant(graph, f"{stem}/{what}", np.array([n])) for what, n in (("begin", begin), ("end", end))]
        axes = add_constant(graph, f"{stem}/axes", np.array([axis]))
        cut = ir.node("Slice", [data, *bounds, axes], num_outputs=1, name=stem)
        out = cut.outputs[0]
        out.name, out.type = f"{stem}/out", data.type
        shapes[out.name] = tuple((end - begin,) * len(n) if k == axis else n for k, n in enumerate(shape))
        graph.insert_before(node, cut)
        return out

    written = updates
    if rest:
        inner = _assigned(graph, node, part("within", first, last), updates, dict(rest), shapes)
        inner.name = f"{node.name}/within{axis}/plain"
        written = inner.outputs[0]
        written.name, written.type = f"{inner.name}/out", updates.type
        shapes[written.name] = shapes[f"{node.name}/within{axis}/out"]
        graph.insert_before(node, inner)
    before = [part("before", 0, first)] if first else []
    after = [part("after", last, shape[axis][0])] if last < shape[axis][0] else []
    return ir.node("Concat", [*before, written, *after], {"axis": axis}, num_outputs=1)


def _written(indices: Indices, shape: tuple[Size, ...]) -> Block | None:
    """The block that is written, where the indices are a grid `[n0, n1, …, axes]` of neighbours along leading axes."""
    blocks: list[Block] = []
    for probe, array in enumerate(indices):
        depth = array.shape[-1]
        if not array.size or array.ndim != depth + 1 or depth > len(shape):
            return None
        firsts = array.reshape(-1, depth)[0]
        if not np.array_equal(array, np.moveaxis(np.indices(array.shape[:-1]), 0, -1) + firsts):
            return None
        reach = {k: (int(first), int(first) + array.shape[k]) for k, first in enumerate(firsts)}
        blocks.append({k: each for k, each in reach.items() if each != (0, shape[k][probe])})
    static = all(len(set(shape[axis])) == 1 for axis in blocks[0])
    return blocks[0] if static and all(block == blocks[0] for block in blocks) else None
