"""Budgets: what kept numbers cost in MACs, parameters and bytes, from lengths alone; no model is built."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.cost import count_macs, count_numbers
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.slots import Keep
from prunegraph.passes.choose.targets import Cost
from prunegraph.passes.normalize import Normalized


def totals(analysis: Analysis, normalized: Normalized) -> dict[str, float]:
    """MACs, parameters and bytes of the whole model."""
    lengths = Lengths(analysis.solution, {})
    params, size = count_numbers(normalized.model.graph, analysis.solution, lengths)
    return {"macs": float(count_macs(analysis.solution, lengths)[0]), "params": float(params[0]), "bytes": size[0]}


def cost(analysis: Analysis, normalized: Normalized) -> Cost:
    """From kept numbers by group id to the fractions that are left of MACs, parameters and bytes."""
    by_id = {group.id: group for group in analysis.groups}
    solution, graph = analysis.solution, normalized.model.graph

    def left(keep: Mapping[str, int]) -> dict[str, float]:
        keeps = {}
        for name, count in keep.items():
            group = by_id[name]
            if count < group.units:
                keeps[group.dim] = Keep(group.outer, np.ones(group.shape, dtype=bool), count)
        lengths = Lengths(solution, keeps)
        macs = count_macs(solution, lengths)
        params, size = count_numbers(graph, solution, lengths)
        both = {"macs": macs, "params": params, "bytes": size}
        return {name: after / max(before, 1) for name, (before, after) in both.items()}

    return left
