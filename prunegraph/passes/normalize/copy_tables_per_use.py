"""One copy per use of tables that a graph computes without weights, such as cos and sin of rotary positions.

Exporters compute such a table once for all layers, and so tie dims of heads that have nothing else in common.  A small
table that is looked up by positions and added to what several layers compute, such as the relative position bias of
T5, ties their heads alike; every layer gets a copy of it.  What stays equal after pruning is computed once again:
Cleanup merges equal nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.solve import Solution, solve
from prunegraph.passes.normalize.copy_constants_per_use import TABLE_SHARE, bytes_of_constants, is_table
from prunegraph.runtime.edit import Editor

POSITIONS = frozenset({ir.DataType.INT32, ir.DataType.INT64})
"""Integers that count and name positions; shorter ones are weights and activations that have been quantized."""

SMALL_TABLE = 4096
"""A table of so few bytes is small beside any model: pruning the rest does not make it a large one."""


def copy_tables(model: ir.Model, facts: Facts, allow_io: Sequence[str] = ()) -> Facts:
    """Give every use of a weightless value with a free axis a copy of the nodes that hold the axis, in place.

    Args:
        model: The model.
        facts: What the probes saw of it.
        allow_io: Patterns of graph inputs and outputs that may shrink.

    Returns:
        The facts, those of the copies included.
    """
    graph = model.graph
    tables = _looked_up_by_position(graph)
    weightless = _weightless(graph, tables)
    uses = [
        (node, index)
        for node in graph
        for index, value in enumerate(node.inputs)
        if value is not None and value.name in weightless and value.producer() is not None
        if not all(output.name in weightless for output in node.outputs)
    ]
    behind = [_computed_from(node.inputs[index], tables) for node, index in uses]
    if max(Counter(value for values in behind for value in values).values(), default=0) < 2:
        return facts
    solution = solve(graph, facts, allow_io)
    editor, shapes = Editor(graph), dict(facts.shapes)
    used: set[ir.Value] = set()
    copiers = 0
    for (node, index), values in zip(uses, behind, strict=True):
        value = node.inputs[index]
        assert value is not None
        if not _is_free(value, solution):
            continue
        free = {each for each in values if _is_free(each, solution)}
        if free & used:  # the first use keeps the originals
            copiers += 1
            copier = _Copier(editor, solution, shapes, f"{node.name}/{index}", tables, copiers)
            node.replace_input_with(index, copier.copy(value))
        used |= free
    RemoveUnusedNodesPass()(model)
    return replace(facts, shapes=shapes)


def _computed_from(value: ir.Value | None, tables: Collection[str]) -> set[ir.Value]:
    """A value and what it is computed from, tables too; other constants, inputs and what lends its lengths left out."""
    behind: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is None or each in behind:
            continue
        node = each.producer()
        if node is not None or each.name in tables:
            behind.add(each)
        if node is not None and not traits_of(node).states_lengths:
            waiting += node.inputs
    return behind


def _looked_up_by_position(graph: ir.Graph) -> frozenset[str]:
    """Small tables of which nodes take rows by positions alone, which follow from lengths."""
    total = bytes_of_constants(graph)
    positional = {name for name, value in graph.initializers.items() if value.dtype is not None and _counts(value)}
    lookups: Counter[str] = Counter()
    for node in graph:
        operands = [value for value in node.inputs if value is not None]
        traits = traits_of(node)
        stated = node.inputs and not traits.varies and all(v.name in positional for v in operands)
        if traits.states_lengths or stated:
            positional.update(value.name or "" for value in node.outputs)
        for lookup in traits_of(node).looks_up:
            if max(lookup.table, lookup.by) >= len(node.inputs):
                continue  # an optional table is not there
            table, by = node.inputs[lookup.table], node.inputs[lookup.by]
            if table is not None and by is not None and by.name in positional and lookup.rows:
                lookups[table.name or ""] += 1
    most = max(TABLE_SHARE * total, SMALL_TABLE)
    return frozenset(
        name
        for name, count in lookups.items()
        if (value := graph.initializers.get(name)) is not None
        and (tensor := value.const_value) is not None
        and tensor.dtype.is_floating_point()
        and tensor.nbytes <= most
        and count == len(value.uses())
    )


def _counts(value: ir.Value) -> bool:
    """Whether a constant holds positions or lengths, or one number for all."""
    tensor = value.const_value
    return tensor is not None and (tensor.dtype in POSITIONS or tensor.size == 1)


def _weightless(graph: ir.Graph, tables: Collection[str]) -> set[str]:
    """Values that follow from positions, vectors of constants and tables: no weight and no activation is among them.

    Args:
        graph: The graph.
        tables: Tables that are looked up by position.
    """
    total = bytes_of_constants(graph)
    weightless = {value.name or "" for value in graph.inputs if value.dtype in POSITIONS}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        narrow = tensor.dtype in POSITIONS or sum(n > 1 for n in tensor.shape.numpy()) <= 1
        if narrow or name in tables or is_table(tensor, list(value.uses()), total):
            weightless.add(name)
    for node in graph:
        traits = traits_of(node)
        constant = node.inputs and all(value is None or value.name in weightless for value in node.inputs)
        if traits.states_lengths or (constant and not traits.varies):
            weightless.update(value.name or "" for value in node.outputs)
    return weightless


def _is_free(value: ir.Value, solution: Solution) -> bool:
    space = solution.space
    return any(not space.pins(leaf) for dim in solution.axes.get(value.name or "", ()) for leaf in space.leaves(dim))


class _Copier:
    """Copies the nodes behind one use, as far back as they hold a free axis."""

    def __init__(
        self,
        editor: Editor,
        solution: Solution,
        shapes: dict[str, tuple[tuple[int, ...], ...]],
        label: str,
        tables: Collection[str],
        number: int,
    ) -> None:
        self.editor, self.solution, self.shapes, self.label = editor, solution, shapes, label
        self.tables, self.number = tables, number
        self.copies: dict[ir.Value, ir.Value] = {}

    def copy(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        if value.name in self.tables and value not in self.copies and _is_free(value, self.solution):
            self.copies[value] = copy = self.editor.copy_constant(value, f"{value.name}/use{self.number}")
            self.shapes[copy.name or ""] = self.shapes[value.name or ""]
        if value in self.copies:
            return self.copies[value]
        if node is None or value.is_graph_output() or not _is_free(value, self.solution):
            return value
        inputs = [None if each is None else self.copy(each) for each in node.inputs]
        clone = self.editor.at(node).after().clone(node, inputs, self.label)
        for old, new in zip(node.outputs, clone.outputs, strict=True):
            self.copies[old] = new
            if old.name in self.shapes:
                self.shapes[new.name or ""] = self.shapes[old.name]
        return self.copies[value]
