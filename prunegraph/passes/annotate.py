"""Write groups, scores and decisions into the metadata of a graph, where Netron and other tools show them.

A node or an initializer gets one entry a group that makes it smaller, `prunegraph.GROUP`, whose value is JSON.  Nothing
that runs a model reads metadata: ONNX Runtime and onnx_ir carry them along, onnx-graphsurgeon drops them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group, Place
from prunegraph.analysis.selection import Selection
from prunegraph.passes.rewrite.provenance import part_of

PREFIX = "prunegraph."
MAX_SCORES = 1024
"""Scores of more units than this are written as a summary alone."""

Scores = npt.NDArray[np.float64]


def annotate(
    model: ir.Model,
    normalized: ir.Model,
    analysis: Analysis,
    scores: Mapping[str, Scores] | None = None,
    scorer: str | Mapping[str, str] = "",
    selection: Selection | None = None,
) -> ir.Model:
    """A copy of a model whose nodes and initializers say which groups they belong to.

    Args:
        model: The model as it was given; it is not changed.
        normalized: What `analysis` speaks of: where a projection was split, its parts lead back to the whole.
        analysis: The groups.
        scores: By group id an array of the group's shape, high for what should stay.
        scorer: Who gave them, of all groups or by group id.
        selection: What stays; groups that it does not name stay whole.
    """
    annotated = model.clone()
    constants = dict(annotated.graph.initializers)
    constants |= {node.outputs[0].name or "": node.outputs[0] for node in annotated.graph if node.op_type == "Constant"}
    for group in analysis.groups:
        name = scorer if isinstance(scorer, str) else scorer.get(group.id, "")
        facts = describe(group, (scores or {}).get(group.id), name, selection)
        for place in group.places:
            weight = constants.get(_name_given(normalized, place))
            entry = json.dumps({**facts, "axis": place.axis, "axes": place.expression})
            for holder in _holders(weight) if weight is not None else ():
                holder.metadata_props[PREFIX + group.id] = entry
    return annotated


def describe(group: Group, scores: Scores | None, scorer: str, selection: Selection | None) -> dict[str, Any]:
    """What is to be said of a group, JSON types only."""
    facts: dict[str, Any] = {"kind": group.kind, "units": f"0-{group.units - 1}", "exact": group.exact}
    if group.rows:
        facts["rows"] = list(group.rows)
    if scores is not None:
        low, median, high = (float(f"{value:.6g}") for value in np.quantile(scores, (0, 0.5, 1)))
        facts |= {"scorer": scorer, "scores": {"min": low, "median": median, "max": high}}
        if scores.size <= MAX_SCORES:
            facts["scores"]["values"] = [float(f"{value:.6g}") for value in scores.reshape(-1)]
    if selection is not None:
        facts["keeps"] = selection.count(group)
        keep = selection.keep.get(group.id)
        if keep is not None and not group.rows:
            facts["removed"] = np.flatnonzero(~np.asarray(keep)).tolist()
    return facts


def note_removal(
    model: ir.Model, plan: str, groups: Mapping[str, tuple[int, int]], original: str, version: str
) -> None:
    """Say in the metadata of a slim model, in place, what was removed, from what, and by which version.

    Args:
        model: The slim model.
        plan: The JSON of its plan, of which a digest is written.
        groups: By id of every smaller group how many units it had and has.
        original: What the model was made of: a file name, or the name of its graph.
        version: Of this package.
    """
    digest = hashlib.sha256(plan.encode()).hexdigest()[:16]
    removed = {name: list(counts) for name, counts in groups.items()}
    model.metadata_props[PREFIX + "version"] = version
    model.metadata_props[PREFIX + "original"] = original
    model.metadata_props[PREFIX + "plan"] = f"sha256:{digest}"
    model.metadata_props[PREFIX + "removed"] = json.dumps(removed)


def strip(model: ir.Model) -> None:
    """Remove everything that `annotate` and `note_removal` write, in place."""
    holders: list[Any] = [model, *model.graph.all_nodes(), *model.graph.initializers.values()]
    for holder in holders:
        for key in [key for key in holder.metadata_props if key.startswith(PREFIX)]:
            del holder.metadata_props[key]


def _name_given(normalized: ir.Model, place: Place) -> str:
    """The name that a weight had before its projection was split."""
    weight = normalized.graph.initializers.get(place.name)
    part = part_of(weight) if weight is not None else None
    return part[0] if part is not None else place.name


def _holders(weight: ir.Value) -> Iterator[ir.Value | ir.Node]:
    """The weight (the value and not its tensor, which copies of a model share) and the nodes that read it."""
    producer = weight.producer()
    yield weight if producer is None else producer
    yield from dict.fromkeys(use.node for use in weight.uses())
