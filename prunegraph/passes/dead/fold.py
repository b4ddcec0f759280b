"""Move what constant units add to the weights that read them into these weights' biases; the function stays the same.

Which units are constant is proved from the graph, see `units`; what they hold is seen by running it once on random
inputs.  The rows of the weights that read them become zero, so that nothing reads these units any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.read_weight import initializer_tensor, read_initializer
from prunegraph.analysis.slots import Keep
from prunegraph.arrays import Array, Floats, Mask
from prunegraph.errors import UsageError
from prunegraph.passes.dead.units import readers_of
from prunegraph.passes.normalize import Normalized, with_constants
from prunegraph.passes.prove.runs import run_all
from prunegraph.passes.prove.trial_inputs import trial_inputs
from prunegraph.passes.repair.fit import Change
from prunegraph.passes.repair.sites import RepairSite, sites
from prunegraph.passes.repair.write import amend, insert
from prunegraph.runtime.widen import widened

ROUNDING = 1e-6
"""Vectorized and plain code of one function differ by so much between positions of one constant."""


@dataclass(frozen=True, slots=True)
class FoldedFeatures:
    """What the features of one weight are that are folded into its bias.

    Attributes:
        features: Positions along the axis that the weight sums.
        values: What each of them holds, in float32.
    """

    features: tuple[int, ...]
    values: tuple[float, ...]


Folded = Mapping[str, FoldedFeatures]
"""By the name of a weight, what was folded into its bias."""


def fold_constants(normalized: Normalized, analysis: Analysis, sizes: Mapping[str, int] | None = None) -> Folded:
    """Which features of which weights can be folded into biases, and what they hold.

    Args:
        normalized: The model.
        analysis: Its analysis.
        sizes: Lengths of dynamic dims at which it runs.
    """
    model = normalized.model
    features: dict[str, Mask] = {}
    where = {site.weight: site for site in _plain_sites(model, analysis)}
    for group, mask in _constant_units(model, analysis):
        keep = {group.dim: Keep(group.outer, ~mask, 0)}
        for name, site in where.items():
            kept_features = site.kept(analysis, keep, _shape(model, name))
            if kept_features is not None and not kept_features.all():
                features[name] = features.get(name, np.zeros(kept_features.shape, dtype=bool)) | ~kept_features
    if not features:
        return {}
    inner = list(dict.fromkeys(where[name].x for name in features))
    wide = widened(model)
    trial = trial_inputs(wide, [value.name or "" for value in model.graph.outputs], None, sizes)
    arrays = run_all(wide, trial.feeds[:1], [], inner)[0]
    folded: dict[str, FoldedFeatures] = {}
    for name, mask in features.items():
        site = where[name]
        values = _values(arrays[site.x], site, _shape(model, name))
        plain = mask & ~np.isnan(values)
        if site.window is not None and any(site.window.pads):
            plain &= values == 0  # the border sees zeros, whatever the constant is
        if plain.any():
            at = np.flatnonzero(plain)
            folded[name] = FoldedFeatures(tuple(map(int, at)), tuple(float(values[k]) for k in at))
    return folded


def fold_as_planned(normalized: Normalized, analysis: Analysis, folded: Folded) -> Normalized:
    """The model with features of its weights folded into their biases.

    Raises:
        UsageError: the model has no such weight or feature.
    """
    model = normalized.model.clone()
    where = {site.weight: site for site in _plain_sites(model, analysis)}
    changes: list[tuple[Sequence[RepairSite], Change]] = []
    for name, each in folded.items():
        if name not in where:
            raise UsageError(f"the plan folds constants into {name}, which is no plain weight of the model", hint=_HINT)
        matrix = where[name].matrix(read_initializer(model, name))
        at = list(each.features)
        if at and not 0 <= min(at) <= max(at) < len(matrix):
            raise UsageError(f"the plan folds features into {name} that it does not have", hint=_HINT)
        less = np.zeros_like(matrix)
        less[at] = -matrix[at]
        changes.append(([where[name]], Change(less, np.asarray(np.array(each.values) @ matrix[at]))))
    missing = amend(model, changes)
    insert(model, analysis, {}, [(site, bias) for site, bias in missing if bias.any()])
    facts = with_constants(model, normalized.facts)
    shapes = dict(facts.shapes)
    for node in model.graph:
        for value in node.inputs:  # what a bias is added to now
            if value is not None and value.name not in shapes and node.outputs[0].name in shapes:
                shapes[value.name or ""] = shapes[node.outputs[0].name or ""]
    return Normalized(model, replace(facts, shapes=shapes), normalized.plan)


_HINT = "use the plan written beside the slim model, and the model it was made from"


def _constant_units(model: ir.Model, analysis: Analysis) -> Iterator[tuple[Group, Mask]]:
    """Groups with units that are constant, and alive, wherever they are read; all that reads these is plain."""
    labels = analysis.solution.labels
    plain = {site.label for site in _plain_sites(model, analysis)}
    for group, readers in readers_of(model, analysis):
        dead = np.logical_and.reduce([reader.unread for reader in readers])
        foldable = ~dead
        for reader in readers:
            is_plain = reader.site is not None and labels[reader.site.node] in plain
            foldable &= reader.unread | (reader.constant & is_plain)
        if foldable.any():
            yield group, foldable


def _plain_sites(model: ir.Model, analysis: Analysis) -> Iterator[RepairSite]:
    """Products with a weight of its own, in floats that hold what is added."""
    for site in sites(model, analysis, {group.dim for group in analysis.groups}):
        if isinstance(site, RepairSite) and site.factor == 1:
            weight = model.graph.initializers[site.weight]
            if len(list(weight.uses())) == 1 and weight.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                yield site


def _values(x: Array, site: RepairSite, shape: tuple[int, ...]) -> Floats:
    """What every feature holds, NaN where it is not the same everywhere."""
    rows = np.moveaxis(x, site.axis, -1).reshape(-1, x.shape[site.axis]).astype(np.float64)
    low, high = rows.min(axis=0), rows.max(axis=0)
    same = high - low <= ROUNDING * np.maximum(np.abs(low), np.abs(high))
    values = np.where(same, rows.mean(axis=0).astype(np.float32), np.nan)
    return np.asarray(np.repeat(values, site.features(shape) // len(values)))


def _shape(model: ir.Model, name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in initializer_tensor(model, name).shape.numpy())
