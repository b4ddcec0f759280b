"""Split stacked projections: where one weight computes Q, K and V and the graph indexes them apart, compute each alone.

`[B, N, 3, h, d]` holds queries, keys and values in one tensor, so their widths are one choice.  Reading one slot of the
stacked axis commutes with all that produced the tensor, up to the weights.  Which axis stacks parts is read off the
analysis; no op pattern is matched: the producing nodes are cloned once a part, and Shrink keeps of each clone the one
slot that is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.slots import Keep, kept_positions
from prunegraph.analysis.solve import Solution, solve
from prunegraph.passes.normalize.slots_read import slots_read
from prunegraph.passes.rewrite.provenance import mark_part, mark_slots, part_of, slots_of
from prunegraph.passes.rewrite.shrink import shrink_in_place
from prunegraph.runtime.edit import Editor

MAX_PARTS = 16


Shapes = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class SliceUser:
    """Output `output` of node `node` (by position) is slot `slot` of axis `axis` of its first input."""

    node: int
    axis: int
    output: int
    slot: int


def split_projections(model: ir.Model, facts: Facts, allow_io: Sequence[str] = ()) -> tuple[ir.Model, Facts]:
    """Compute parts apart wherever weights can be taken apart, in place; also returns what probes would see then."""
    users = list(_slice_users(model.graph, facts))
    if not users:
        return model, facts
    solution = solve(model.graph, facts, allow_io, {(user.node, user.axis) for user in users})
    stacks = _stacked_axes(model.graph, solution, users)
    if not stacks:
        return model, facts
    shapes = dict(facts.shapes)
    nodes = {node.name or "": node for node in model.graph}
    editor = Editor(model.graph)
    parts = [part for stack in stacks for part in _clone_per_part(editor, nodes, stack, shapes)]
    RemoveUnusedNodesPass()(model)
    return _keep_one_slot_each(model, replace(facts, shapes=shapes), parts)


def _slice_users(graph: ir.Graph, facts: Facts) -> Iterator[SliceUser]:
    """Every read of one slot at a constant place from a short static axis."""
    for k, node in enumerate(graph):
        source = node.inputs[0] if node.inputs else None
        shape = facts.shapes.get(source.name or "") if source is not None else None
        if source is None or not shape or source.is_initializer():
            continue
        if not any(value.is_graph_output() for value in node.outputs):
            for read in slots_read(node, [size[0] for size in shape], facts):
                if len(set(shape[read.axis])) == 1 and 1 < shape[read.axis][0] <= MAX_PARTS:
                    yield SliceUser(k, read.axis, read.output, read.slot)


@dataclass(frozen=True, slots=True)
class StackedAxis:
    """Everything that holds one Dim that enumerates parts.

    Attributes:
        nodes: Names of the nodes between the weights and the slice users, in order.
        constants: Names of the initializers that hold the Dim.
        users: Who reads one slot of it.
        size_readers: Names of the nodes that read no more than sizes of other axes; any part will do.
        length: How many parts there are.
    """

    nodes: tuple[str, ...]
    constants: tuple[str, ...]
    users: tuple[NamedUser, ...]
    size_readers: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True)
class NamedUser:
    """A `SliceUser` by names; axis `axis` of the value `source` is the stacked Dim and nothing else."""

    node: str
    output: int
    slot: int
    source: str
    axis: int


def _stacked_axes(graph: ir.Graph, solution: Solution, users: Sequence[SliceUser]) -> list[StackedAxis]:
    nodes = list(graph)
    by_dim: dict[int, list[SliceUser]] = defaultdict(list)
    for user in users:
        value = nodes[user.node].inputs[0]
        assert value is not None and value.name is not None
        axis = solution.resolve(value.name)[user.axis]
        if len(axis.terms) == 1 and len(axis.terms[0]) == 1 and isinstance(axis.terms[0][0], int):
            dim = axis.terms[0][0]
            if not solution.space.pins(dim):
                by_dim[dim].append(user)
    for dim in by_dim.keys() & set(_reduced(nodes, solution)):
        del by_dim[dim]  # a norm over the parts is no norm of one part
    if not by_dim:
        return []
    holding: dict[int, set[str]] = defaultdict(set)
    for name in solution.axes:
        for axis in solution.resolve(name):
            for dim in by_dim.keys() & set(axis.dims()):
                holding[dim].add(name)
    touching = _touching(nodes, set().union(*holding.values()))
    stacks = []
    for dim, users_of_dim in by_dim.items():
        near = {k: nodes[k] for k in sorted({k for name in holding[dim] for k in touching[name]})}
        stacks.append(_stacked_axis(graph, near, solution, dim, users_of_dim, holding[dim]))
    return [stack for stack in stacks if stack is not None]


def _reduced(nodes: Sequence[ir.Node], solution: Solution) -> Iterator[int]:
    """Every leaf that some node takes a sum, a mean or a maximum over."""
    for site in solution.reduces:
        value = nodes[site.node].inputs[site.index]
        if value is not None and value.name is not None:
            yield from solution.space.leaves(solution.axes[value.name][site.axis])


def _touching(nodes: Sequence[ir.Node], names: set[str]) -> Mapping[str, list[int]]:
    """Which nodes (by position) read or make each of these values."""
    touching: dict[str, list[int]] = defaultdict(list)
    for k, node in enumerate(nodes):
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.name in names:
                touching[value.name].append(k)
    return touching


def _stacked_axis(
    graph: ir.Graph,
    near: Mapping[int, ir.Node],
    solution: Solution,
    dim: int,
    users: Sequence[SliceUser],
    holding: set[str],
) -> StackedAxis | None:
    """What holds a stacked Dim, None where something but a slice user looks at it from outside.

    `near` are the nodes that read or make a value of `holding`, by position and in order.
    """
    slicing = {user.node for user in users}
    inside: list[str] = []
    size_readers: list[str] = []
    for k, node in near.items():
        outputs = {value.name for value in node.outputs}
        if outputs & holding:
            if not outputs - {""} <= holding or k in slicing or any(value.is_graph_output() for value in node.outputs):
                return None
            inside.append(node.name or "")
        elif _reads_other_sizes(node, solution, dim):
            size_readers.append(node.name or "")
        elif k not in slicing and any(value is not None and value.name in holding for value in node.inputs):
            return None
        if k in slicing and any(value is not None and value.name in holding for value in node.inputs[1:]):
            return None
    constants = tuple(name for name in graph.initializers if name in holding)
    if not inside or not constants or any(graph.initializers[name].is_graph_input() for name in constants):
        return None
    named = tuple(_named(near[user.node], user) for user in users)
    return StackedAxis(tuple(inside), constants, named, tuple(size_readers), solution.dim_size(dim)[0])


def _reads_other_sizes(node: ir.Node, solution: Solution, dim: int) -> bool:
    """Whether a node takes, at constant places, lengths of axes that do not hold a Dim."""
    if node.op_type != "Shape" or node.attributes or node.inputs[0] is None or node.outputs[0].is_graph_output():
        return False
    lengths = solution.resolve(node.inputs[0].name or "")
    for reader, _ in node.outputs[0].uses():
        index = reader.inputs[1].const_value if reader.op_type == "Gather" and reader.inputs[1] is not None else None
        if index is None or any(dim in lengths[k].dims() for k in index.numpy().reshape(-1)):
            return False
    return True


def _named(node: ir.Node, user: SliceUser) -> NamedUser:
    source = node.inputs[0]
    assert source is not None and source.name is not None
    return NamedUser(node.name or "", user.output, user.slot, source.name, user.axis)


# ---- taking apart --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A clone of what a slice user reads, still with all slots: `reader` is to read slot `slot` of axis `axis`."""

    value: ir.Value
    reader: ir.Node
    axis: int
    slot: int
    length: int


def _clone_per_part(editor: Editor, nodes: Mapping[str, ir.Node], stack: StackedAxis, shapes: Shapes) -> Iterator[Part]:
    """Clone what holds a stacked axis once a part, whole for now, and let every slice user read its own clone."""
    for slot in sorted({user.slot for user in stack.users}):
        copies: dict[str, ir.Value] = {}
        for name in stack.constants:
            copies[name] = editor.copy_constant(editor.graph.initializers[name], f"{name}/part{slot}")
            mark_part(copies[name], name, slot)
        for name in stack.nodes:
            node = nodes[name]
            inputs = [None if value is None else copies.get(value.name or "", value) for value in node.inputs]
            clone = editor.at(node).before().clone(node, inputs, f"part{slot}")
            mark_part(clone, name, slot)
            for old, new in zip(node.outputs, clone.outputs, strict=True):
                mark_part(new, old.name or "", slot)
            copies |= {old.name or "": new for old, new in zip(node.outputs, clone.outputs, strict=True)}
        for node in (nodes[name] for name in stack.size_readers):
            if (whole := node.inputs[0]) is not None and whole.name in copies:
                node.replace_input_with(0, copies[whole.name])
        shapes |= {copy.name or "": shapes[name] for name, copy in copies.items()}
        for user in stack.users:
            if user.slot == slot:
                part = copies[user.source]
                reader = _redirect(editor, nodes[user.node], user, part, shapes)
                yield Part(part, reader, user.axis, slot, stack.length)


def _redirect(editor: Editor, node: ir.Node, user: NamedUser, part: ir.Value, shapes: Shapes) -> ir.Node:
    """Read the one slot that the clone will be left with: drop its axis, or take it as it is."""
    old = node.outputs[user.output]
    here = editor.at(node).before()
    name = f"{node.name}/{user.output}/part{user.slot}"
    if node.op_type == "Gather" and len(shapes[old.name or ""]) < len(shapes[user.source]):
        index = node.inputs[1]
        assert index is not None and index.const_value is not None
        zero = here.constant(np.zeros_like(index.const_value.numpy()), f"{node.name}/{user.output}/zero")
        shapes[zero.name or ""] = shapes[index.name or ""]
        reader = here.node("Gather", part, zero, name=name, like=node, copied=node.attributes.values())
    else:
        reader = here.node("Identity", part, name=name, like=node)
    reader.outputs[0].type, reader.outputs[0].shape = old.type, old.shape
    here.replace(old, reader.outputs[0])
    return reader


def _keep_one_slot_each(model: ir.Model, facts: Facts, parts: Sequence[Part]) -> tuple[ir.Model, Facts]:
    """Shrink every clone to the one slot that is read from it."""
    position = {node: k for k, node in enumerate(model.graph)}
    readers = {(position[part.reader], part.axis) for part in parts}
    solution = solve(model.graph, facts, unrelated=readers)
    keeps: dict[int, Keep] = {}
    for part in parts:
        dim = solution.resolve(part.value.name or "")[part.axis].terms[0][0]
        assert isinstance(dim, int)
        keeps[dim] = Keep((), np.arange(part.length) == part.slot, 1)
    for name, value in model.graph.initializers.items():
        if part_of(value) is not None and slots_of(value) is None:
            mark_slots(value, kept_positions(solution.resolve(name), keeps, solution.dim_size))
    shrunk = shrink_in_place(model, solution, keeps)
    return shrunk.model, shrunk.facts
