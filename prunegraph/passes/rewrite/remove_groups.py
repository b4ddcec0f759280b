"""Remove whole groups: shrink a model where every unit of some groups goes, and their sub-blocks with them.

Shrink leaves one unit of every such group, for ops cannot be asked to work with lengths of zero; then what is computed
from these units is folded away, see `fold_empty`, and nothing may hold them any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.slots import Keep, Keeps
from prunegraph.analysis.solve import Solution
from prunegraph.passes.rewrite.cleanup import literal_targets
from prunegraph.passes.rewrite.fold_empty import ConstantPropagation
from prunegraph.passes.rewrite.shrink import shrink_in_place


@dataclass(frozen=True, slots=True)
class SlimModel:
    """A smaller model, and what went from it altogether.

    Attributes:
        model: The smaller model.
        lengths: How long the axes of what is left are.
        gone: Positions of the nodes that are not there any more.
        left: The Dims that something still holds; None where no group went whole.
        refused: Dims of groups that cannot go whole, and why; the model is of no use then.
    """

    model: ir.Model
    lengths: Lengths
    gone: frozenset[int]
    left: frozenset[int] | None
    refused: Mapping[int, str]


def remove_whole_groups(model: ir.Model, solution: Solution, keeps: Keeps) -> SlimModel:
    """`shrink` for keeps that may leave nothing of some Dims.

    Args:
        model: The normalized model that `solution` speaks of; it is not changed.
        solution: Its settled axes.
        keeps: What stays of every Dim that shrinks; a count of 0 leaves nothing.
    """
    whole = frozenset(dim for dim, keep in keeps.items() if keep.count == 0)
    thin = {dim: _one_unit(keep) if dim in whole else keep for dim, keep in keeps.items()}
    slim = model.clone()
    nodes = list(slim.graph)
    shrunk = shrink_in_place(slim, solution, thin)
    lengths = Lengths(solution, thin)
    if not whole:
        return SlimModel(slim, lengths, frozenset(), None, {})
    literal_targets(slim.graph, solution, lengths)
    propagation = ConstantPropagation(slim.graph, nodes, solution, Lengths(solution, keeps), whole, shrunk.facts)
    propagation.fold()
    _drop_where(slim.graph.outputs, lambda value: propagation.empty(value) and value not in propagation.known)
    RemoveUnusedNodesPass()(slim)
    _drop_where(slim.graph.inputs, lambda value: propagation.empty(value) and not value.uses())
    gone = frozenset(k for k, node in enumerate(nodes) if node.graph is None)
    left = frozenset(dim for value in _values(slim.graph) for dim in propagation.dims(value))
    return SlimModel(slim, lengths, gone, left, propagation.refused(left))


def _drop_where(values: MutableSequence[ir.Value], is_gone: Callable[[ir.Value], bool]) -> None:
    """Inputs or outputs of which nothing is left go, such as the caches of an attention that is gone; one stays."""
    for k in reversed(range(len(values))):
        if len(values) > 1 and is_gone(values[k]):
            values.pop(k)


def _one_unit(keep: Keep) -> Keep:
    """The first unit of every row."""
    return Keep(keep.outer, np.broadcast_to(np.arange(keep.mask.shape[-1]) == 0, keep.mask.shape), 1)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
