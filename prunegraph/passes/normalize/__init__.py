"""Normalize: make a graph analysable and change no result beyond rounding."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize.canonicalize import canonicalize
from prunegraph.passes.normalize.certain import certain
from prunegraph.passes.normalize.constant_conditions import constant_conditions
from prunegraph.passes.normalize.copy_constants_per_use import copy_constants
from prunegraph.passes.normalize.copy_tables_per_use import copy_tables
from prunegraph.passes.normalize.flatten import FLATTENINGS
from prunegraph.passes.normalize.freeze import freeze
from prunegraph.passes.normalize.inline_branches import inline_branches
from prunegraph.passes.normalize.merge_equal_weights import merge_equal_weights
from prunegraph.passes.normalize.names import name_values
from prunegraph.passes.normalize.probe import integers, probe
from prunegraph.passes.normalize.read_parts import merge_parts, read_parts
from prunegraph.passes.normalize.split_directions import split_directions
from prunegraph.passes.normalize.split_projections import split_projections
from prunegraph.passes.normalize.state_scales import state_scales
from prunegraph.passes.normalize.zero_states import leave_out_zero_states
from prunegraph.runtime.trial_sizes import Plan

logger = logging.getLogger(__name__)

__all__ = ["Normalized", "normalize", "with_constants"]


@dataclass(frozen=True, slots=True)
class Normalized:
    """A model that can be analysed.

    Attributes:
        model: Flat and frozen, constants copied per use, projections split; it computes what the original computes.
        facts: What was seen when it ran.
        plan: Lengths of dynamic dims of inputs at which it was seen to run, one for each probe; empty where none was.
    """

    model: ir.Model
    facts: Facts
    plan: Plan = ()

    @property
    def sizes(self) -> Mapping[str, int]:
        """The lengths that costs are stated for."""
        return self.plan[0] if self.plan else {}

    @property
    def settled(self) -> Mapping[str, int]:
        """Lengths of dims that are declared dynamic and had one length whenever the model ran."""
        return {dim: n for dim, n in self.sizes.items() if all(sizes[dim] == n for sizes in self.plan)}


def normalize(
    model: ir.Model,
    sizes: Mapping[str, int] | None = None,
    likely: Mapping[str, int] | None = None,
    allow_io: Sequence[str] = (),
) -> Normalized:
    """A copy of the model that can be analysed.

    Functions are inlined, constants become initializers, whatever all probes saw alike is frozen, small constants
    get one copy per use, parts that are computed as one are computed apart.  Inputs, outputs, dynamic dims, names of
    weights and metadata stay.

    Args:
        model: It is not changed.
        sizes: Lengths of dynamic dims of inputs, by name, where the caller knows them.
        likely: Lengths at which it is known to run, such as those of data: tried where the usual ones fail.
        allow_io: Patterns of graph inputs and outputs that may shrink: what they hold is free to be chosen apart.

    Raises:
        ModelError: an input is no tensor of known rank.
        UsageError: the model has no such dim.
    """
    model = model.clone()
    for step in (
        InlinePass(),
        RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        LiftSubgraphInitializersToMainGraphPass(),
        RemoveUnusedNodesPass(),
        TopologicalSortPass(),
    ):
        step(model)
    name_values(model.graph)
    inline_branches(model)
    while inline_branches(model, constant_conditions(model)):
        pass  # one may stand in what another one was inlined to
    probed = probe(model, sizes, likely)
    while inline_branches(model, certain(model.graph, probed.held)):
        probed = probe(model, sizes, likely)  # what hung on a branch may be known now
    for flatten in FLATTENINGS:
        flat = model.clone()
        if not probed.facts.endless and flatten(flat):
            flat_probed = probe(flat, sizes, likely)
            if not flat_probed.facts.unseen:  # a branch need not run where the other one is taken
                model, probed = flat, flat_probed
    if why := probed.facts.unseen:
        logger.warning("the model cannot be run; what shape inference cannot tell is pinned (%s)", why)
    facts, stated = canonicalize(model.graph, probed.facts, probed.held, probed.blocks)
    freeze(model, certain(model.graph, stated))
    state_scales(model.graph, facts)
    merge_equal_weights(model.graph)
    leave_out_zero_states(model.graph)
    facts = read_parts(model.graph, with_constants(model, facts))
    facts = read_parts(model.graph, split_directions(model.graph, with_constants(model, facts)))
    facts = merge_parts(model.graph, facts)
    RemoveUnusedNodesPass()(model)
    facts = copy_tables(model, with_constants(model, facts), allow_io)
    copy_constants(model.graph)
    model, facts = split_projections(model, with_constants(model, facts), allow_io)
    return Normalized(model, facts, probed.plan)


def with_constants(model: ir.Model, facts: Facts) -> Facts:
    """Facts with the shapes and the integers of all initializers that a model has now."""
    shapes = dict(facts.shapes)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple((int(n),) * facts.probes for n in value.const_value.shape.numpy())
    return replace(facts, shapes=shapes, integers={**facts.integers, **integers(model.graph, {}, facts.probes)})
