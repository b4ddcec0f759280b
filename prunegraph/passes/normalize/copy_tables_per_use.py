"""One copy per use of tables that a graph computes without weights, such as cos and sin of rotary positions.

Exporters compute such a table once for all layers, and so tie dims of heads that have nothing else in common.  What
stays equal after pruning is computed once again: Cleanup merges equal nodes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.facts import Facts
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.solve import Solution, solve
from prunegraph.passes.normalize.copy_constants_per_use import bytes_of_constants, is_table
from prunegraph.runtime.edit import Editor


def copy_tables(model: ir.Model, facts: Facts) -> Facts:
    """Give every use of a weightless value with a free axis a copy of the nodes that hold the axis, in place.

    Returns:
        The facts, those of the copies included.
    """
    graph = model.graph
    weightless = _weightless(graph)
    uses = [
        (node, index)
        for node in graph
        for index, value in enumerate(node.inputs)
        if value is not None and value.name in weightless and value.producer() is not None
        if not all(output.name in weightless for output in node.outputs)
    ]
    behind = [_computed_from(node.inputs[index]) for node, index in uses]
    if max(Counter(value for values in behind for value in values).values(), default=0) < 2:
        return facts
    solution = solve(graph, facts)
    editor, shapes = Editor(graph), dict(facts.shapes)
    used: set[ir.Value] = set()
    for (node, index), values in zip(uses, behind, strict=True):
        value = node.inputs[index]
        assert value is not None
        if not _is_free(value, solution):
            continue
        free = {each for each in values if _is_free(each, solution)}
        if free & used:  # the first use keeps the originals
            copy = _Copier(editor, solution, shapes, f"{node.name}/{index}").copy(value)
            node.replace_input_with(index, copy)
        used |= free
    RemoveUnusedNodesPass()(model)
    return replace(facts, shapes=shapes)


def _computed_from(value: ir.Value | None) -> set[ir.Value]:
    """A value and what it is computed from, constants and inputs left out."""
    behind: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in behind and (node := each.producer()) is not None:
            behind.add(each)
            waiting += node.inputs
    return behind


def _weightless(graph: ir.Graph) -> set[str]:
    """Values that follow from positions, vectors of constants and tables: no weight and no activation is among them."""
    total = bytes_of_constants(graph)
    weightless = {value.name or "" for value in graph.inputs if value.dtype is not None and value.dtype.is_integer()}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        narrow = tensor.dtype.is_integer() or sum(n > 1 for n in tensor.shape.numpy()) <= 1
        if narrow or is_table(tensor, list(value.uses()), total):
            weightless.add(name)
    for node in graph:
        stated = traits_of(node).states_lengths
        if stated or (node.inputs and all(value is None or value.name in weightless for value in node.inputs)):
            weightless.update(value.name or "" for value in node.outputs)
    return weightless


def _is_free(value: ir.Value, solution: Solution) -> bool:
    space = solution.space
    return any(not space.pins(leaf) for dim in solution.axes.get(value.name or "", ()) for leaf in space.leaves(dim))


class _Copier:
    """Copies the nodes behind one use, as far back as they hold a free axis."""

    def __init__(
        self, editor: Editor, solution: Solution, shapes: dict[str, tuple[tuple[int, ...], ...]], label: str
    ) -> None:
        self.editor, self.solution, self.shapes, self.label = editor, solution, shapes, label
        self.copies: dict[ir.Value, ir.Value] = {}

    def copy(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        if node is None or value.is_graph_output() or not _is_free(value, self.solution):
            return value
        if value not in self.copies:
            inputs = [None if each is None else self.copy(each) for each in node.inputs]
            clone = self.editor.at(node).after().clone(node, inputs, self.label)
            for old, new in zip(node.outputs, clone.outputs, strict=True):
                self.copies[old] = new
                if old.name in self.shapes:
                    self.shapes[new.name or ""] = self.shapes[old.name]
        return self.copies[value]
