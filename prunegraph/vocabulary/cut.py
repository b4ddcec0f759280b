"""Cut the rows of tokens out of embeddings and of what makes logits, and prove that kept logits are what they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.slots import Keep
from prunegraph.analyzed import Analyzed
from prunegraph.arrays import Array, Mask
from prunegraph.errors import REPORT_MODEL, UsageError, VerificationFailed
from prunegraph.passes.prove.compare import compare
from prunegraph.passes.prove.runs import run_all
from prunegraph.passes.prove.trial_inputs import trial_inputs
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.nest import nest
from prunegraph.passes.rewrite.shrink import shrink
from prunegraph.runtime.edit import Editor, numbers
from prunegraph.runtime.widen import widened

_ALLOWED = ("gathered by position", "graph output")
_HINT = "cut the model before that node, or leave its vocabulary whole"
RUNS = 3


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Where a model has its tokens.

    Attributes:
        ids: The input that holds their numbers.
        size: How many there are.
        dims: The Dims of tables and of logits that run over them.
        outputs: Axes of graph outputs that run over them, by name.
    """

    ids: str
    size: int
    dims: frozenset[int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SmallVocabulary:
    """A model of fewer tokens, and its proof.

    Attributes:
        model: It takes new ids, positions in `kept`, and makes logits in that order.
        kept: The old ids of its tokens, ascending.
        size: How many tokens the original has.
        ids: The input that holds ids.
        outputs: The outputs with a logit a token.
        error: Largest difference of a kept logit or of another output, relative to the output's scale.
    """

    model: ir.Model
    kept: tuple[int, ...]
    size: int
    ids: str
    outputs: tuple[str, ...]
    error: float


def cut_vocabulary(analyzed: Analyzed, kept: Sequence[int]) -> SmallVocabulary:
    """The model for fewer tokens: rows of embeddings, tied or separate output layers and their biases go.

    Args:
        analyzed: The model.
        kept: Ids of the tokens that stay.

    Raises:
        UsageError: the model has no such vocabulary, computes with ids, or lacks a token.
        VerificationFailed: the small model makes other numbers of kept tokens.
    """
    model, analysis = analyzed.normalized.model, analyzed.analysis
    there = find_vocabulary(model.graph, analysis)
    order = sorted(set(kept))
    if not order or order[0] < 0 or order[-1] >= there.size:
        raise UsageError(f"the model has the tokens 0 to {there.size - 1}", hint="give ids of its own tokenizer")
    mask = np.zeros(there.size, dtype=bool)
    mask[order] = True
    keeps = {dim: Keep((), mask, len(order)) for dim in there.dims} if len(order) < there.size else {}
    slim = shrink(model, analysis.solution, keeps).model
    _renumber(slim, there.ids, order)
    slim = cleanup(slim, analysis.solution, Lengths(analysis.solution, keeps))
    slim = nest(slim)
    error = compare_kept(analyzed, slim, there, np.array(order), mask)
    return SmallVocabulary(slim, tuple(order), there.size, there.ids, tuple(there.outputs), error)


def find_vocabulary(graph: ir.Graph, analysis: Analysis) -> Vocabulary:
    """The input that looks up the longest table, and all that runs over the rows of that.

    Raises:
        UsageError: no input looks up a table, or something hangs on the rows or the ids in another way.
    """
    solution = analysis.solution
    tables = [(source, name, axis) for source, name, axis in _lookups(graph) if name in solution.axes]
    if not tables:
        raise UsageError("no input of the model looks up rows of a table", hint="a model of tokens has such an input")
    rows = {(name, axis): solution.resolve(name)[axis] for _, name, axis in tables}
    sizes = {key: sum(solution.dim_size(dim)[0] for dim in solution.leaves(*key)) for key in rows}
    ids, name, axis = max(tables, key=lambda each: sizes[each[1], each[2]])
    size = sizes[name, axis]
    dims = set[int]()
    for source, other, k in tables:
        if source == ids:
            dims |= solution.leaves(other, k)
            if sizes[other, k] != size or len(solution.leaves(other, k)) != 1:
                raise UsageError(f"{ids} looks up tables of {size} and of {sizes[other, k]} rows", hint=_HINT)
    outputs: dict[str, int] = {}
    for value in graph.outputs:
        for k in range(len(solution.axes.get(value.name or "", ()))):
            leaves = solution.leaves(value.name or "", k)
            if len(leaves) == 1 and all(n == size for leaf in leaves for n in solution.dim_size(leaf)):
                outputs[value.name or ""] = k
                dims |= leaves
    for dim in dims:
        for pin in solution.space.pins(dim):
            if not pin.why.startswith(_ALLOWED):
                raise UsageError(f"the vocabulary cannot be cut: {pin}", hint=_HINT)
    list(_compared(graph, ids))
    return Vocabulary(ids, size, frozenset(dims), outputs)


def _lookups(graph: ir.Graph) -> Iterator[tuple[str, str, int]]:
    """Inputs, tables that they look up, and the axis of their rows."""
    inputs = {value: value.name or "" for value in graph.inputs if value.name not in graph.initializers}
    for node in graph:
        for lookup in traits_of(node).looks_up:
            by = node.inputs[lookup.by] if lookup.by < len(node.inputs) else None
            while by is not None and by not in inputs and (maker := by.producer()) is not None:
                by = maker.inputs[0] if 0 in traits_of(maker).carries else None
            table = node.inputs[lookup.table]
            if by in inputs and table is not None and lookup.rows and not lookup.tuples:
                yield inputs[by], table.name or "", lookup.axis(node)


def _compared(graph: ir.Graph, ids: str) -> Iterator[tuple[ir.Node, int]]:
    """Nodes that compare ids with one number, and which of their inputs holds it.

    Raises:
        UsageError: a node computes with them in another way.
    """
    waiting = [value for value in graph.inputs if value.name == ids]
    while waiting:
        for node, index in waiting.pop().uses():
            traits = traits_of(node)
            if index in traits.looked_up_by or traits.states_lengths:
                continue
            if index in traits.carries:
                waiting += node.outputs
                continue
            number = numbers(node.inputs[1 - index]) if node.op_type == "Equal" else None
            if number is None or number.size != 1:
                raise UsageError(f"the vocabulary cannot be cut: {node.name} computes with token ids", hint=_HINT)
            yield node, 1 - index


def _renumber(slim: ir.Model, ids: str, kept: Sequence[int]) -> None:
    """Ids are compared with new numbers; with one that no token has where the token is gone."""
    new, editor = {old: k for k, old in enumerate(kept)}, Editor(slim.graph)
    for node, index in list(_compared(slim.graph, ids)):
        before = numbers(node.inputs[index])
        assert before is not None
        after = np.full_like(before, new.get(int(before.reshape(-1)[0]), -1))
        node.replace_input_with(index, editor.constant(after, f"{node.name}/id"))


# ---- the proof -------------------------------------------------------------------------------------------------------


def compare_kept(analyzed: Analyzed, slim: ir.Model, there: Vocabulary, kept: Array, mask: Mask) -> float:
    """How far kept logits are off, on random kept tokens.

    Args:
        analyzed: The model.
        slim: What knows fewer tokens.
        there: Where the model has its tokens.
        kept: The old ids of kept tokens, ascending.
        mask: Which tokens of the model stay.

    Raises:
        VerificationFailed: by more than rounding.
    """
    original, small = widened(analyzed.original), widened(slim)
    names = [value.name or "" for value in original.graph.outputs]
    trial = trial_inputs(original, names, None, analyzed.normalized.settled)
    rng = np.random.default_rng(0)
    feeds = [dict(feed) for feed in trial.feeds for _ in range(RUNS)]
    mapped = []
    for feed in feeds:
        new = rng.integers(0, len(kept), feed[there.ids].shape)
        mapped.append({**feed, there.ids: new.astype(feed[there.ids].dtype)})
        feed[there.ids] = kept[new].astype(feed[there.ids].dtype)
    worst = 0.0
    for before, after in zip(run_all(original, feeds, names), run_all(small, mapped, names), strict=True):
        for name in names:
            axis = there.outputs.get(name)
            expected = before[name] if axis is None else np.compress(mask, before[name], axis=axis)
            gap = compare(expected, after[name])
            worst = max(worst, gap.relative)
            if not gap.rounding:
                raise VerificationFailed(f"{name} of kept tokens is off by {gap.relative:.1e}", hint=REPORT_MODEL)
    return worst
