"""Normalize: make a graph analysable and change no result beyond rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.canonicalize import canonicalize
from prunegraph.passes.normalize.copy_constants_per_use import copy_constants
from prunegraph.passes.normalize.copy_tables_per_use import copy_tables
from prunegraph.passes.normalize.freeze import freeze
from prunegraph.passes.normalize.merge_equal_weights import merge_equal_weights
from prunegraph.passes.normalize.names import name_values
from prunegraph.passes.normalize.probe import integers, probe
from prunegraph.passes.normalize.split_projections import split_projections
from prunegraph.passes.normalize.state_scales import state_scales

__all__ = ["Normalized", "normalize"]


@dataclass(frozen=True, slots=True)
class Normalized:
    """A model that can be analysed.

    Attributes:
        model: Flat and frozen, constants copied per use, projections split; it computes what the original computes.
        facts: What was seen when it ran.
        sizes: The lengths of dynamic dims of inputs in the first probe, which is what costs are stated for.
    """

    model: ir.Model
    facts: Facts
    sizes: Mapping[str, int]


def normalize(model: ir.Model) -> Normalized:
    """A copy of the model that can be analysed.

    Functions are inlined, constants become initializers, whatever all probes saw alike is frozen, small constants
    get one copy per use, parts that are computed as one are computed apart.  Inputs, outputs, dynamic dims, names of
    weights and metadata stay.
    """
    model = model.clone()
    for step in (
        InlinePass(),
        RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        RemoveUnusedNodesPass(),
        TopologicalSortPass(),
    ):
        step(model)
    name_values(model.graph)
    probed = probe(model)
    facts, stated = canonicalize(model.graph, probed.facts, probed.held, probed.blocks)
    freeze(model, stated)
    state_scales(model.graph, facts)
    merge_equal_weights(model.graph)
    facts = copy_tables(model, _with_constants(model, facts))
    copy_constants(model.graph)
    model, facts = split_projections(model, _with_constants(model, facts))
    return Normalized(model, facts, probed.sizes)


def _with_constants(model: ir.Model, facts: Facts) -> Facts:
    shapes = dict(facts.shapes)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple((int(n),) * facts.probes for n in value.const_value.shape.numpy())
    return Facts(facts.probes, shapes, {**facts.integers, **integers(model.graph, {}, facts.probes)})
