"""Normalize: make a graph analysable and change no result beyond rounding."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.freeze import freeze
from prunegraph.passes.normalize.hoist import hoist
from prunegraph.passes.normalize.names import name_values
from prunegraph.passes.normalize.probe import integers, probe
from prunegraph.passes.normalize.unshare import unshare

__all__ = ["normalize"]


def normalize(model: ir.Model) -> tuple[ir.Model, Facts]:
    """A copy of the model that is flat, frozen and unshared, and what was seen when it ran.

    Functions are inlined, constants become initializers, whatever both probes saw alike is frozen, small constants get one
    copy per use.  Inputs, outputs, dynamic dims, names of weights and metadata stay.
    """
    model = model.clone()
    for step in (
        InlinePass(),
        RemoveUnusedFunctionsPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        RemoveUnusedNodesPass(),
        TopologicalSortPass(),
    ):
        step(model)
    name_values(model.graph)
    facts, held = probe(model)
    freeze(model, held)
    unshare(model.graph)
    return hoist(model, _with_constants(model, facts))


def _with_constants(model: ir.Model, facts: Facts) -> Facts:
    shapes = dict(facts.shapes)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple((int(n),) * facts.probes for n in value.const_value.shape.numpy())
    return Facts(facts.probes, shapes, {**facts.integers, **integers(model.graph, {}, facts.probes)})
