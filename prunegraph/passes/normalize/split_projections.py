"""Hoist parts: what computes three things at once and takes them apart by index is made to compute three things.

`[B, N, 3, h, d]` holds queries, keys and values in one tensor, so their widths are one choice.  A take of one slot
commutes with all that produced the tensor, up to the weights.  Which axis enumerates parts is read off the analysis;
no op pattern is matched: the producing nodes are cloned once a part, and Shrink keeps of each clone the one slot that
is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.slots import Keep
from prunegraph.analysis.solve import Solution, solve
from prunegraph.passes.normalize.copy_tables_per_use import clone_node
from prunegraph.passes.rewrite.constants import add_constant
from prunegraph.passes.rewrite.provenance import mark_part
from prunegraph.passes.rewrite.shrink import shrink_in_place

MAX_PARTS = 16


@dataclass(frozen=True, slots=True)
class Take:
    """Output `output` of node `node` (by position) is slot `slot` of axis `axis` of its first input."""

    node: int
    axis: int
    output: int
    slot: int


def hoist(model: ir.Model, facts: Facts) -> tuple[ir.Model, Facts]:
    """Compute parts apart wherever weights can be taken apart, in place; also returns what probes would see then."""
    takes = list(_takes(model.graph, facts))
    if not takes:
        return model, facts
    solution = solve(model.graph, facts, unrelated={(take.node, take.axis) for take in takes})
    cones = _cones(model.graph, solution, takes)
    if not cones:
        return model, facts
    shapes = dict(facts.shapes)
    nodes = {node.name or "": node for node in model.graph}
    for cone in cones:
        _expand(model.graph, nodes, cone, shapes)
    RemoveUnusedNodesPass()(model)
    return _keep_one_slot_each(model, Facts(facts.probes, shapes, facts.integers), cones)


def _takes(graph: ir.Graph, facts: Facts) -> Iterator[Take]:
    """Every take of one slot at a constant place from a short static axis."""
    for k, node in enumerate(graph):
        source = node.inputs[0] if node.inputs else None
        shape = facts.shapes.get(source.name or "") if source is not None else None
        if source is None or not shape or source.is_initializer() or node.domain not in ("", "ai.onnx"):
            continue
        if any(value.is_graph_output() for value in node.outputs):
            continue
        slots = [_integers(value, facts) for value in node.inputs[1:]]
        if node.op_type == "Gather" and slots and slots[0] is not None and slots[0].size == 1:
            axis = _attribute(node, "axis", 0) % len(shape)
            found = [Take(k, axis, 0, int(slots[0].reshape(-1)[0]) % shape[axis][0])]
        elif node.op_type == "Split":
            axis = _attribute(node, "axis", 0) % len(shape)
            found = (
                [Take(k, axis, j, j) for j in range(len(node.outputs))] if shape[axis][0] == len(node.outputs) else []
            )
        elif node.op_type == "Slice" and len(slots) >= 3 and all(s is not None and s.size == 1 for s in slots):
            start, end, along = (int(s.reshape(-1)[0]) for s in slots[:3] if s is not None)
            axis = along % len(shape)
            begin, stop, _ = slice(start, end).indices(shape[axis][0])
            found = [Take(k, axis, 0, begin)] if stop - begin == 1 else []
        else:
            continue
        yield from (take for take in found if len(set(shape[axis])) == 1 and 1 < shape[axis][0] <= MAX_PARTS)


def _integers(value: ir.Value | None, facts: Facts) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    seen = facts.integers.get(value.name or "") if value is not None else None
    return seen[0] if seen and all(np.array_equal(seen[0], other) for other in seen) else None


def _attribute(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


@dataclass(frozen=True, slots=True)
class Cone:
    """Everything that holds one enumerating Dim.

    Attributes:
        nodes: Names of the nodes between the weights and the takes, in order.
        constants: Names of the initializers that hold the Dim.
        takes: What is taken.
        sizes: Names of the nodes that read no more than sizes of other axes; any part will do.
        length: How many parts there are.
    """

    nodes: tuple[str, ...]
    constants: tuple[str, ...]
    takes: tuple[NamedTake, ...]
    sizes: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True)
class NamedTake:
    """A `Take` by names; axis `axis` of the value `source` is the enumerating Dim and nothing else."""

    node: str
    output: int
    slot: int
    source: str
    axis: int

    @property
    def reader(self) -> str:
        """The name of the node that reads the part instead."""
        return f"{self.node}/{self.output}/part{self.slot}"


def _cones(graph: ir.Graph, solution: Solution, takes: Sequence[Take]) -> list[Cone]:
    nodes = list(graph)
    by_dim: dict[int, list[Take]] = defaultdict(list)
    for take in takes:
        value = nodes[take.node].inputs[0]
        assert value is not None and value.name is not None
        axis = solution.resolve(value.name)[take.axis]
        if len(axis.terms) == 1 and len(axis.terms[0]) == 1 and isinstance(axis.terms[0][0], int):
            dim = axis.terms[0][0]
            if not solution.space.pins(dim):
                by_dim[dim].append(take)
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
    cones = []
    for dim, mine in by_dim.items():
        near = {k: nodes[k] for k in sorted({k for name in holding[dim] for k in touching[name]})}
        cones.append(_cone(graph, near, solution, dim, mine, holding[dim]))
    return [cone for cone in cones if cone is not None]


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


def _cone(
    graph: ir.Graph, near: Mapping[int, ir.Node], solution: Solution, dim: int, takes: Sequence[Take], holding: set[str]
) -> Cone | None:
    """The cone of an enumerating Dim, None where something but a take looks at it from outside.

    `near` are the nodes that read or make a value of `holding`, by position and in order.
    """
    taking = {take.node for take in takes}
    inside: list[str] = []
    sizes: list[str] = []
    for k, node in near.items():
        outputs = {value.name for value in node.outputs}
        if outputs & holding:
            if not outputs - {""} <= holding or k in taking or any(value.is_graph_output() for value in node.outputs):
                return None
            inside.append(node.name or "")
        elif _reads_other_sizes(node, solution, dim):
            sizes.append(node.name or "")
        elif k not in taking and any(value is not None and value.name in holding for value in node.inputs):
            return None
        if k in taking and any(value is not None and value.name in holding for value in node.inputs[1:]):
            return None
    constants = tuple(name for name in graph.initializers if name in holding)
    if not inside or not constants or any(graph.initializers[name].is_graph_input() for name in constants):
        return None
    named = tuple(_named(near[take.node], take) for take in takes)
    return Cone(tuple(inside), constants, named, tuple(sizes), solution.dim_size(dim)[0])


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


def _named(node: ir.Node, take: Take) -> NamedTake:
    source = node.inputs[0]
    assert source is not None and source.name is not None
    return NamedTake(node.name or "", take.output, take.slot, source.name, take.axis)


def _part(name: str, slot: int) -> str:
    return f"{name}/part{slot}"


def _expand(
    graph: ir.Graph, nodes: Mapping[str, ir.Node], cone: Cone, shapes: dict[str, tuple[tuple[int, ...], ...]]
) -> None:
    """Clone the cone once a part, whole for now, and let every take read its own clone."""
    for slot in sorted({take.slot for take in cone.takes}):
        copies: dict[str, ir.Value] = {}
        for name in cone.constants:
            value = graph.initializers[name]
            copy = ir.Value(name=_part(name, slot), shape=value.shape, type=value.type, const_value=value.const_value)
            copy.metadata_props.update(value.metadata_props)
            mark_part(copy, name, slot)
            graph.register_initializer(copy)
            copies[name] = copy
        for name in cone.nodes:
            node = nodes[name]
            inputs = [None if value is None else copies.get(value.name or "", value) for value in node.inputs]
            clone = clone_node(node, inputs, f"part{slot}")
            mark_part(clone, name, slot)
            for old, new in zip(node.outputs, clone.outputs, strict=True):
                mark_part(new, old.name or "", slot)
            graph.insert_before(node, clone)
            copies |= {old.name or "": new for old, new in zip(node.outputs, clone.outputs, strict=True)}
        for node in (nodes[name] for name in cone.sizes):
            if (whole := node.inputs[0]) is not None and whole.name in copies:
                node.replace_input_with(0, copies[whole.name])
        shapes |= {copy.name or "": shapes[name] for name, copy in copies.items()}
        for take in cone.takes:
            if take.slot == slot:
                _redirect(graph, nodes[take.node], take, copies, shapes)


def _redirect(
    graph: ir.Graph,
    node: ir.Node,
    take: NamedTake,
    copies: Mapping[str, ir.Value],
    shapes: dict[str, tuple[tuple[int, ...], ...]],
) -> None:
    """Read the one slot that the clone will be left with: drop its axis, or take it as it is."""
    mine = copies[take.source]
    old = node.outputs[take.output]
    squeezes = node.op_type == "Gather" and len(shapes[old.name or ""]) < len(shapes[take.source])
    if squeezes:
        index = node.inputs[1]
        assert index is not None and index.const_value is not None
        zero = add_constant(graph, f"{node.name}/{take.output}/zero", np.zeros_like(index.const_value.numpy()))
        shapes[zero.name or ""] = shapes[index.name or ""]
        reader = ir.Node("", "Gather", [mine, zero], list(node.attributes.values()), num_outputs=1)
    else:
        reader = ir.Node("", "Identity", [mine], num_outputs=1)
    reader.name = take.reader
    reader.metadata_props.update(node.metadata_props)
    graph.insert_before(node, reader)
    new = reader.outputs[0]
    new.type, new.shape = old.type, old.shape
    name = old.name or ""
    old.replace_all_uses_with(new)
    old.name = f"{name}/before"
    new.name = name


def _keep_one_slot_each(model: ir.Model, facts: Facts, cones: Sequence[Cone]) -> tuple[ir.Model, Facts]:
    """Shrink every clone to the one slot that is read from it."""
    position = {node.name: k for k, node in enumerate(model.graph)}
    readers = {(position[take.reader], take.axis) for cone in cones for take in cone.takes}
    solution = solve(model.graph, facts, unrelated=readers)
    keeps: dict[int, Keep] = {}
    for cone in cones:
        for take in cone.takes:
            dim = solution.resolve(_part(take.source, take.slot))[take.axis].terms[0][0]
            assert isinstance(dim, int)
            keeps[dim] = Keep((), np.arange(cone.length) == take.slot, 1)
    shrunk = shrink_in_place(model, solution, keeps)
    return shrunk.model, shrunk.facts
