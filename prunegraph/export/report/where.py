"""Where the parameters, the multiply-adds and the time of a model lie, block by block, before and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.slots import Keeps
from prunegraph.bench.profile import NodeTime
from prunegraph.passes.rewrite.provenance import part_of
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups

OTHERS = "elsewhere"

Amounts = Mapping[str, tuple[float, float]]
"""By block how much there was and is of something."""


def where_it_lies(params: Amounts, macs: Amounts, times: Amounts) -> list[dict[str, Any]]:
    """A row a block: parameters before and after, and multiply-adds and milliseconds where they are known."""
    rows = []
    for block in dict.fromkeys([*params, *macs, *times]):
        before, after = params.get(block, (0, 0))
        row: dict[str, Any] = {"block": block, "before": before, "after": after}
        row |= {
            name: list(by_block.get(block, (0, 0))) for name, by_block in (("macs", macs), ("ms", times)) if by_block
        }
        rows.append(row)
    return sorted(rows, key=lambda row: row["block"] == OTHERS)


def parameters_by_block(
    original: ir.Model, slim: ir.Model, names: Mapping[str, str], totals: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Parameters of every block: what a weight's name says up to its first number, such as `encoder.layer.3`.

    Args:
        original: The model as it was given.
        slim: What became of it.
        names: Every weight's name for people.
        totals: All parameters, before and after; what no block has lies elsewhere.
    """
    before, after = (_counted(model, names) for model in (original, slim))
    blocks = {block: (units, after[block]) for block, units in before.items() if units}
    had, left = (sum(both[end] for both in blocks.values()) for end in (0, 1))
    if (had, left) != totals:
        blocks[OTHERS] = (totals[0] - had, totals[1] - left)
    return blocks


def macs_by_block(
    model: ir.Model, analysis: Analysis, keeps: Keeps, names: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    """Multiply-adds of every block, before and after, at the sizes that the report counts them at.

    Args:
        model: The normalized model.
        analysis: Its analysis.
        keeps: What stays of it.
        names: Every weight's name for people.
    """
    lengths, gone = Lengths(analysis.solution, keeps), frozenset[int]()
    if any(keep.count == 0 for keep in keeps.values()):
        slim = remove_whole_groups(model, analysis.solution, keeps)
        lengths, gone = slim.lengths, slim.gone
    blocks = list(_node_blocks(model.graph, names))
    counted: dict[str, tuple[int, int]] = {}
    for site in analysis.solution.contractions():
        both = [lengths.both(axis) for axis in site.macs]
        old, new = math.prod(old[0] for old, _ in both), math.prod(new[0] for _, new in both)
        before, after = counted.get(blocks[site.node], (0, 0))
        counted[blocks[site.node]] = before + old, after + (0 if site.node in gone else new)
    return counted


def times_by_block(
    original: ir.Model,
    slim: ir.Model,
    names: Mapping[str, str],
    times: tuple[Sequence[NodeTime], Sequence[NodeTime]],
) -> dict[str, tuple[float, float]]:
    """Milliseconds of every block, before and after, by the runtime's profile of both models."""
    before, after = (_spent(model, names, each) for model, each in zip((original, slim), times, strict=True))
    return {block: (before[block], after[block]) for block in dict.fromkeys([*before, *after])}


def _spent(model: ir.Model, names: Mapping[str, str], times: Iterable[NodeTime]) -> Counter[str]:
    """A node of the graph that was run belongs where its output does; a new one to what it reads."""
    blocks: dict[str, str] = {}
    for node, block in zip(model.graph, _node_blocks(model.graph, names), strict=True):
        blocks |= {value.name or "": block for value in node.outputs}
    spent: Counter[str] = Counter()
    for each in times:
        block = next((blocks[name] for name in (*each.outputs, *reversed(each.inputs)) if name in blocks), OTHERS)
        blocks |= {name: blocks.get(name, block) for name in each.outputs}
        spent[block] += each.ms  # type: ignore[assignment]  # a Counter of floats adds up as well
    return spent


def _node_blocks(graph: ir.Graph, names: Mapping[str, str]) -> Iterable[str]:
    """For every node the block of a weight that it reads, else the last one among those of what it reads."""
    order: dict[str, int] = {OTHERS: -1}
    blocks: dict[ir.Value, str] = {}
    for node in graph:
        weights = [value.name or "" for value in node.inputs if value is not None and _is_weight(value)]
        weight_names = [
            names[weight] for weight in weights if weight in names
        ]  # the others were computed for this graph
        if weight_names:
            block = block_of(weight_names[-1])
        else:
            sources = [blocks[value] for value in node.inputs if value in blocks]
            block = max(sources, key=order.__getitem__, default=OTHERS)
        order.setdefault(block, len(order))
        blocks |= dict.fromkeys(node.outputs, block)
        yield block


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value if value.is_initializer() else None
    return tensor is not None and tensor.dtype.is_floating_point() and tensor.size > 1


def names_of_wholes(model: ir.Model, names: Mapping[str, str]) -> dict[str, str]:
    """Names for people also of weights that Normalize took apart: those of their parts."""
    wholes: dict[str, str] = {}
    for name, value in model.graph.initializers.items():
        part = part_of(value)
        if part is not None and name in names:
            wholes.setdefault(part[0], names[name])
    return wholes | dict(names)


def _counted(model: ir.Model, names: Mapping[str, str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point():
            counted[block_of(names.get(name, name))] += tensor.size
    return counted


def block_of(name: str) -> str:
    """The block that a weight belongs to.

    >>> block_of("bert.encoder.layer.3.output.dense.weight"), block_of("pooler.dense.bias"), block_of("w")
    ('bert.encoder.layer.3', 'pooler', 'w')
    """
    parts = name.split(".")
    number = next((k for k, part in enumerate(parts) if part.isdigit()), None)
    if number is not None:
        return ".".join(parts[: number + 1])
    return ".".join(parts[:-2]) or parts[0]
