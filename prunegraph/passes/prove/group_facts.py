"""What the proof says of every group: where a wrong weight of it would have been seen, and what zeroing means there."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.groups import Group
from prunegraph.analysis.read_weight import initializer_tensor, late, read_weight
from prunegraph.analysis.relations import Reduction
from prunegraph.analysis.slots import Keeps
from prunegraph.analysis.solve import Solution
from prunegraph.passes.prove.compare import are_apart
from prunegraph.passes.prove.inner import Perturbation
from prunegraph.passes.rewrite.provenance import part_of
from prunegraph.runtime.blocks import Given, open_runner
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import UNLIMITED, CannotRun, Limits
from prunegraph.runtime.session import SessionSettings
from prunegraph.runtime.widen import widened_feeds

OUTPUT, DEAD = "output", "dead"

RUNS = 8
"""For so many groups at most it is tried whether an output shows a wrong weight; of the others an inner value tells."""


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What the proof says of one group that got smaller.

    Attributes:
        id: The group.
        seen: Where other numbers in its weights would have shown: `output`; `inside NAME`, a value that both graphs
            have; or `dead`, where nothing depends on what is left of it.
        fill: What stands in for its removed units in the original, and in which nodes, where that is not zero.
    """

    id: str
    seen: str
    fill: str

    def to_dict(self) -> dict[str, str]:
        """The fields as JSON writes them."""
        return {"id": self.id, "seen": self.seen, "fill": self.fill}


def weights_of(groups: Sequence[Group], weights: Sequence[str], normalized: ir.Graph) -> Mapping[str, list[str]]:
    """Which of the rewritten weights hold units of which group, by its id: under the names that they have now."""
    joined: dict[str, list[str]] = defaultdict(list)
    for name, value in normalized.initializers.items():
        part = part_of(value)
        if part is not None:
            joined[part[0]].append(name)
    holders: dict[str, set[str]] = {name: {name, *joined.get(name, ())} for name in weights}
    return {
        group.id: [name for name in weights if any(place.name in holders[name] for place in group.places)]
        for group in groups
    }


def seen_at_outputs(
    slim: ir.Model,
    groups: Mapping[str, tuple[str, Perturbation]],
    candidates: Iterable[Feeds],
    outputs: Sequence[str],
    limits: Limits = UNLIMITED,
) -> set[str]:
    """The groups of which other numbers in one of their weights move an output of the slim model.

    Weights become inputs with a default, so that all groups run together.

    Args:
        slim: The slim model.
        groups: By id a weight, and how other numbers are made of its own.
        candidates: What it may run on: the first that it runs on is taken.
        outputs: What is looked at.
        limits: What a run may take; beyond them nothing is seen.
    """
    twin = slim.clone()
    there = {value.name for value in twin.graph.inputs}
    tried = {group: groups[group] for group in _spread(list(groups), RUNS)}
    fed = dict.fromkeys(weight for weight, _ in tried.values() if weight not in there)
    twin.graph.inputs.extend(twin.graph.initializers[name] for name in fed)
    for feeds in candidates if tried else ():
        with contextlib.suppress(CannotRun):  # an op that wants constants, or no room: inner values tell
            return _moving(twin, tried, widened_feeds(feeds), outputs, limits)
    return set()


def _moving(
    model: ir.Model,
    groups: Mapping[str, tuple[str, Perturbation]],
    feeds: Feeds,
    outputs: Sequence[str],
    limits: Limits,
) -> set[str]:
    changed = (_with_other(model, feeds, weight, other) for weight, other in groups.values())
    output_names = [list(outputs)] * (len(groups) + 1)
    settings = SessionSettings(optimize=False, prepack=False, trial=limits.memory)
    with open_runner(model, list(outputs), settings) as runner:
        runs = runner.run(chain([feeds], changed), output_names, limits)
        before = next(runs)
        return {
            group
            for group, after in zip(groups, runs, strict=True)
            if any(are_apart(before[name], after[name]) for name in outputs)
        }


def _with_other(model: ir.Model, feeds: Feeds, weight: str, other: Perturbation) -> Given:
    """Inputs, and other numbers for a weight, which are made when it is read."""
    tensor = initializer_tensor(model, weight)
    changed = late(lambda: other.of(read_weight(tensor)), tensor.dtype, tensor.shape.numpy(), weight)
    return {**feeds, weight: changed}


def _spread(names: list[str], most: int) -> list[str]:
    if len(names) <= most:
        return names
    return [names[int(k)] for k in np.linspace(0, len(names) - 1, most)]


# ---- what zeroing means ----------------------------------------------------------------------------------------------

_FILLS = {
    Reduction.MAX: "the lowest number",
    Reduction.RANK: "the lowest number",
    Reduction.MIN: "the highest number",
    Reduction.MEAN: "nothing: the mean is that of what stays",
}


def fills(graph: ir.Graph, solution: Solution, keeps: Keeps) -> Mapping[int, str]:
    """By Dim what stands in for removed units where that is not zero, or where a sum is taken that no weight takes.

    Removing equals zeroing where weights sum units up; a maximum over them is not that with a zero among them, and a
    sum or mean over them (of attention maps, over heads) is that over what stays.
    """
    nodes = list(graph)
    readers: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for site in solution.reduces:
        value = nodes[site.node].inputs[site.index]
        name = value.name if value is not None else None
        if name is None or name not in solution.axes:
            continue
        plain = site.kind is Reduction.SUM
        if plain and solution.rules[site.node].contractions:
            continue
        what = "zero: the sum is that of what stays" if plain else _FILLS[site.kind]
        for dim in solution.resolve(name)[site.axis].dims():
            if dim in keeps and solution.labels[site.node] not in readers[dim][what]:
                readers[dim][what].append(solution.labels[site.node])
    return {
        dim: "; ".join(
            f"{what} (in {', '.join(labels[:3])}{', …' if len(labels) > 3 else ''})" for what, labels in each.items()
        )
        for dim, each in readers.items()
    }
