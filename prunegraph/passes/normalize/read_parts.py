"""Concats that are read apart: what is read of one part is read there, so that it does not hang on the others.

What stands side by side is equally long along all other axes.  A last state of several layers, or a stack that is
flattened, needs none of that: the widths of its parts are choices of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.slots_read import SlotRead, slots_read
from prunegraph.runtime.edit import Editor, Insertion

Shapes = dict[str, tuple[Size, ...]]


def read_parts(graph: ir.Graph, facts: Facts) -> Facts:
    """Read a slot of a Concat from the part that holds it, in place; also returns what probes would see then."""
    shapes, editor = dict(facts.shapes), Editor(graph)
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or not _parts(source, shapes):
            continue
        reads = slots_read(node, [size[0] for size in shapes[source.name or ""]], facts)
        if reads and reads[0].axis == _concat_axis(source, shapes):
            for read in reads:
                _read_part(editor, node, read, source, shapes)
            graph.remove(node, safe=True)
    return replace(facts, shapes=shapes)


def _parts(value: ir.Value | None, shapes: Shapes) -> list[tuple[ir.Value, int]]:
    """What a Concat puts side by side, each with its length; empty where that hangs on the input."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Concat" or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return []
    if any(each is None or each.name not in shapes for each in (value, *node.inputs)):
        return []
    axis = _concat_axis(node.outputs[0], shapes)
    sizes = [shapes[each.name or ""][axis] for each in node.inputs if each is not None]
    if any(len(set(size)) > 1 for size in sizes):
        return []
    return [(each, size[0]) for each, size in zip(node.inputs, sizes, strict=True) if each is not None]


def _concat_axis(value: ir.Value, shapes: Shapes) -> int:
    node = value.producer()
    assert node is not None
    return node.attributes["axis"].as_int() % len(shapes[value.name or ""])


def _read_part(editor: Editor, node: ir.Node, read: SlotRead, source: ir.Value, shapes: Shapes) -> None:
    """Let what reads a slot read it from the part that holds it, which may be put together itself."""
    old, slot, length, part = node.outputs[read.output], read.slot, 0, source
    while (parts := _parts(part, shapes)) and _concat_axis(part, shapes) == read.axis:
        ends = np.cumsum([n for _, n in parts])
        k = int(np.searchsorted(ends, slot, side="right"))
        part, length = parts[k]
        slot -= int(ends[k]) - length
    drops = node.op_type == "Gather" and len(shapes[old.name or ""]) < len(shapes[source.name or ""])
    here = editor.at(node).before()
    name = f"{node.name}/part{read.output or ''}"
    if length == 1 and not drops:
        new = here.add("Identity", part, name=name, like=node)
    else:
        index = here.constant(np.array(slot) if drops else np.array([slot]), f"{name}/slot")
        new = here.add("Gather", part, index, name=name, like=node, axis=read.axis)
    new.type, new.shape = old.type, old.shape
    here.replace(old, new)


# ---- stacks that are flattened -------------------------------------------------------------------------------------


def merge_parts(graph: ir.Graph, facts: Facts) -> Facts:
    """Put slots of a stack that is flattened side by side at once, in place: `stack([a, b], 1)` as `[-1, n·w]`.

    Returns:
        What probes would see then.
    """
    shapes, editor = dict(facts.shapes), Editor(graph)
    for node in list(graph):
        if node.op_type == "Reshape" and node.domain in ("", "ai.onnx"):
            _merge(editor, node, shapes)
    return replace(facts, shapes=shapes)


def _merge(editor: Editor, node: ir.Node, shapes: Shapes) -> None:
    moves, value = _moved(node.inputs[0])
    parts = _parts(value, shapes)
    if value is None or not parts or any(length != 1 for _, length in parts):
        return
    axis = _concat_axis(value, shapes)
    for move in moves:
        axis = _order(move, shapes).index(axis)
    before, after = (shapes.get(each.name or "", ()) for each in (node.inputs[0], node.outputs[0]) if each is not None)
    if axis + 1 >= len(before):
        return
    merged = tuple(len(parts) * n for n in before[axis + 1])
    if after != (*before[:axis], merged, *before[axis + 2 :]):
        return
    here, old = editor.at(node).before(), node.outputs[0]
    slots = [_one_slot(here, node, part, moves, axis, shapes) for part, _ in parts]
    here.replace(old, here.add("Concat", *slots, name=f"{node.name}/parts", like=node, axis=axis))
    editor.graph.remove(node, safe=True)


def _moved(value: ir.Value | None) -> tuple[list[ir.Node], ir.Value | None]:
    """The Transposes that a value went through last, in their order, and what they were given."""
    moves: list[ir.Node] = []
    while value is not None and (maker := value.producer()) is not None and maker.op_type == "Transpose":
        moves.insert(0, maker)
        value = maker.inputs[0]
    return moves, value


def _order(move: ir.Node, shapes: Shapes) -> list[int]:
    stated = move.attributes.get_ints("perm")
    return list(stated) if stated else list(range(len(shapes[move.outputs[0].name or ""])))[::-1]


def _one_slot(
    here: Insertion, node: ir.Node, part: ir.Value, moves: Sequence[ir.Node], axis: int, shapes: Shapes
) -> ir.Value:
    """One slot of a stack, moved as the whole is and without the axis that it was stacked along."""
    shape = shapes[part.name or ""]
    for move in moves:
        shape = tuple(shape[k] for k in _order(move, shapes))
        part = here.add("Transpose", part, name=f"{move.name}/part", like=move, copied=move.attributes.values())
        part.shape = None
        shapes[part.name or ""] = shape
    part = here.add(
        "Gather", part, here.constant(np.array(0), f"{node.name}/slot"), name=f"{node.name}/part", axis=axis
    )
    part.type = node.outputs[0].type
    shapes[part.name or ""] = (*shape[:axis], *shape[axis + 1 :])
    return part
