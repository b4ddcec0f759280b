"""Views: a chain of ops that only cut, join, drop or reorder axes is written with as few of them as do.

Taking parts apart leaves axes of length 1 behind, and some exporters flatten a batch of heads only to transpose what is
inside.  What a chain does is followed on atoms, the pieces of axes that the chain never cuts: it is whatever order it
leaves them in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.axes import Size
from prunegraph.analysis.ops import traits_of
from prunegraph.passes.rewrite.cleanup.atoms import AtomLayout, Atoms, Step, ways
from prunegraph.passes.rewrite.cleanup.identities import remove_identities
from prunegraph.passes.rewrite.cleanup.targets import stated
from prunegraph.passes.rewrite.provenance import part_of
from prunegraph.runtime.edit import Editor, numbers

SizesByValue = dict[str, tuple[Size, ...]]

_FAR = 2**31 - 1


def shorten_views(model: ir.Model, sizes: SizesByValue, touched: Collection[str]) -> None:
    """Replace chains of views by shorter ones, in place.

    Args:
        model: The model.
        sizes: How long the axes of values are, each in every probe; new values are added.
        touched: Values that pruning made smaller.  Chains that hold none, and no part of what Normalize took apart, are
            as the exporter wrote them, and stay: others know them by their shape.
    """
    shorter = True
    while shorter:
        editor = Editor(model.graph)
        shorter = any([_shorten(editor, chain, sizes) for chain in list(_chains(model.graph, sizes, touched))])
        remove_identities(model)
        RemoveUnusedNodesPass()(model)


def _chains(graph: ir.Graph, sizes: SizesByValue, touched: Collection[str]) -> Iterator[list[ir.Node]]:
    """Every longest chain of views of which only the end is read."""
    for node in reversed(list(graph)):
        if not _is_view(node, sizes) or _next(node, sizes) is not None:
            continue
        chain = [node]
        while (above := _before(chain[0], sizes)) is not None:
            chain.insert(0, above)
        names = {chain[0].inputs[0].name, *(each.outputs[0].name for each in chain)}  # type: ignore[union-attr]
        if names & set(touched) or any(part_of(each) for each in chain):
            yield chain


def _next(node: ir.Node, sizes: SizesByValue) -> ir.Node | None:
    """The view that alone reads a view."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader, index = uses[0]
    return reader if index == 0 and _is_view(reader, sizes) else None


def _before(node: ir.Node, sizes: SizesByValue) -> ir.Node | None:
    value = node.inputs[0]
    above = value.producer() if value is not None else None
    return above if above is not None and _is_view(above, sizes) and _next(above, sizes) is node else None


def _is_view(node: ir.Node, sizes: SizesByValue) -> bool:
    """Whether a node makes all numbers of its first input anew, in rows of another length or in another order."""
    if node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None or len(node.outputs) != 1:
        return False
    before, after = sizes.get(node.inputs[0].name or ""), sizes.get(node.outputs[0].name or "")
    if (
        before is None
        or after is None
        or any(0 in size for size in (*before, *after))
        or node.inputs[0].is_initializer()
    ):
        return False
    if node.op_type == "Gather":
        return _takes_all(node, before)
    if node.op_type == "Slice":
        return before == after and _slices_nothing(node, before)
    if node.op_type == "Expand":
        return before == after and _repeats_nothing(node, before)
    return traits_of(node).permutes or traits_of(node).reshapes


def _takes_all(node: ir.Node, before: Sequence[Size]) -> bool:
    """Whether a Gather takes the only slot of an axis, once."""
    index = numbers(node.inputs[1])
    axis = node.attributes.get_int("axis", 0)
    return index is not None and index.size == 1 and set(before[axis]) == {1}


def _slices_nothing(node: ir.Node, before: Sequence[Size]) -> bool:
    operands = [numbers(value) for value in node.inputs[1:]]
    if len(operands) < 2 or any(operand is None for operand in operands):
        return False
    starts, ends, *rest = (operand.reshape(-1).tolist() for operand in operands if operand is not None)
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    static = all(len(set(before[axis])) == 1 for axis in axes)
    whole = all(start == 0 and end >= _FAR for start, end in zip(starts, ends, strict=True))
    return all(step == 1 for step in steps) and (static or whole)


def _repeats_nothing(node: ir.Node, before: Sequence[Size]) -> bool:
    target = numbers(node.inputs[1])
    if target is None or target.size > len(before):
        return False
    lengths = before[len(before) - target.size :]
    return all(n == 1 or set(size) == {n} for n, size in zip(target.tolist(), lengths, strict=True))


# ---- shorter ones --------------------------------------------------------------------------------------------------


def _shorten(editor: Editor, chain: Sequence[ir.Node], sizes: SizesByValue) -> bool:
    """Replace a chain if there is a shorter one that does the same."""
    first = chain[0].inputs[0]
    assert first is not None
    atoms = Atoms(probes=max((len(size) for node in chain for size in sizes[node.outputs[0].name or ""]), default=1))
    start = end = atoms.new(sizes[first.name or ""])
    for node in chain:
        if node.op_type == "Transpose":
            layout: AtomLayout | None = tuple(end[k] for k in _order(node, len(end)))
        else:
            layout = atoms.regroup(end, sizes[node.outputs[0].name or ""])
        if layout is None:
            return False
        end = layout
    start, end = atoms.settled(start), atoms.settled(end)
    for way in ways(start, end):
        if len(way) < len(chain) and (steps := _written(atoms, start, way)) is not None:
            _replace(editor, chain, steps, sizes)
            return True
    return False


def _order(node: ir.Node, rank: int) -> Sequence[int]:
    return node.attributes["perm"].as_ints() if "perm" in node.attributes else range(rank)[::-1]


ViewNode = tuple[Sequence[int] | None, Sequence[int] | None, tuple[Size, ...]]
"""A node to be: the order of a Transpose or the target of a Reshape, and the shape that it makes."""


def _written(atoms: Atoms, start: AtomLayout, way: Sequence[Step]) -> list[ViewNode] | None:
    """What the nodes of a way state; None where a Reshape would have to compute its target."""
    steps: list[ViewNode] = []
    before = start
    for step in way:
        shape = tuple(atoms.size(axis) for axis in step.layout)
        target = None
        if step.order is None:
            static = [size[0] if len(set(size)) == 1 else None for size in shape]
            kept = [k < len(before) and before[k] == axis for k, axis in enumerate(step.layout)]
            target = stated([n if n is not None else 0 if same else -1 for n, same in zip(static, kept, strict=True)])
            if target is None:
                return None
        steps.append((step.order, target, shape))
        before = step.layout
    return steps


def _replace(editor: Editor, chain: Sequence[ir.Node], steps: Sequence[ViewNode], sizes: SizesByValue) -> None:
    """Write the nodes of a way; the last one takes over the name of what the chain makes."""
    last = chain[-1]
    value, old = chain[0].inputs[0], last.outputs[0]
    assert value is not None
    here = editor.at(last).before()
    for order, target, shape in steps or [(None, None, sizes[old.name or ""])]:
        if target is not None:
            literal = here.constant(np.array(target, dtype=np.int64), f"{last.name}/target")
            value = here.add("Reshape", value, literal, like=last)
        elif order is not None:
            value = here.add("Transpose", value, perm=order, like=last)
        else:
            value = here.add("Identity", value, like=last)
        lengths = [size[0] if len(set(size)) == 1 else None for size in shape]
        value.shape = ir.Shape(lengths) if old.type is not None else None  # a file states none without a type
        sizes[value.name or ""] = shape
    here.replace(old, value)
    sizes[value.name or ""] = sizes[old.name or ""] = shape
