"""Clean up a slim graph: write known targets as literals, join what Normalize split, drop what nothing needs."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    RemoveUnusedNodesPass,
)

from prunegraph.analysis.axes import Size
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.solve import Solution
from prunegraph.passes.rewrite.cleanup.identities import remove_identities
from prunegraph.passes.rewrite.cleanup.parts import join_parts
from prunegraph.passes.rewrite.cleanup.scales import push_scales
from prunegraph.passes.rewrite.cleanup.targets import literal_targets
from prunegraph.passes.rewrite.cleanup.views import shorten_views

__all__ = ["cleanup", "literal_targets"]


def cleanup(model: ir.Model, solution: Solution, lengths: Lengths) -> ir.Model:
    """Tidy a shrunk model, in place; weights, names and results stay.

    Args:
        model: What Shrink made.
        solution: The axes of the model that it was made from.
        lengths: What stays of them.
    """
    literal_targets(model.graph, solution, lengths)
    sizes, changed = _sizes(solution, lengths)
    push_scales(model.graph, sizes)
    remove_identities(model)
    RemoveUnusedNodesPass()(model)
    shorten_views(model, sizes, changed)
    join_parts(model.graph)
    _share_constants(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    return model


def _sizes(solution: Solution, lengths: Lengths) -> tuple[dict[str, tuple[Size, ...]], set[str]]:
    """How long every axis of every value is now, and the values of which one got shorter."""
    sizes, changed = {}, set()
    for name in solution.axes:
        both = [lengths.both(axis) for axis in solution.resolve(name)]
        sizes[name] = tuple(new for _, new in both)
        if any(old != new for old, new in both):
            changed.add(name)
    return sizes, changed


def _share_constants(model: ir.Model) -> None:
    logger = logging.getLogger("onnx_ir.passes.common.initializer_deduplication")
    level = logger.level
    logger.setLevel(
        logging.ERROR
    )  # an initializer that is also an input is none of its business, and no reason to warn
    try:
        DeduplicateInitializersPass(size_limit=1024)(model)
    finally:
        logger.setLevel(level)
