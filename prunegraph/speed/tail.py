"""Harm without a slim model: the one product that a cut changes is corrected, and only what follows it is run.

Where all units of a group are summed by one weight, and by nothing else, cutting them changes the result of that
product alone: what the lost units gave is taken away, and what the re-fitted weight makes of the others is added.  What
lies before it is run once, and what follows in one session, for all levels of the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.arrays import Array
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.divergence import Outputs, divergence_of
from prunegraph.observe.metric import rows_of
from prunegraph.observe.run_batches import run_batches
from prunegraph.observe.stream import Inputs
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.passes.repair.repair import Evidence, evidence, solved
from prunegraph.passes.repair.sites import RepairSite, sites
from prunegraph.passes.repair.statistics import Gram
from prunegraph.runtime.session import open_session
from prunegraph.runtime.widen import widened

MEMORY = 1 << 30
"""Bytes of values before and beside the product that are held; with more the slim model is run."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows one product, and everything that it is given.

    Attributes:
        site: The product.
        model: What follows.
        given: By batch, by name what it reads: of the batch, and of what was computed before.
        features: By batch what the product reads.
        product: By batch what it makes.
    """

    site: RepairSite
    model: ir.Model
    given: tuple[dict[str, Array], ...]
    features: tuple[Array, ...]
    product: tuple[Array, ...]

    def outputs(self, change: tuple[Array, Array], outputs: Outputs) -> Iterator[list[Array]]:
        """By batch the rows of every output, where this is added to the product.

        Args:
            change: What is multiplied with the features, `[features, made]`, and what is added to that, `[made]`.
            outputs: Which outputs are compared.
        """
        matrix, bias = (part.astype(np.float32) for part in change)
        names = [value.name or "" for value in self.model.graph.outputs]
        with open_session(self.model, prepack=False, providers=outputs.providers) as session:
            for k, batch in enumerate(outputs.batches):
                features = self.features[k]
                flat = features.reshape(-1, features.shape[-1]) @ matrix  # one product, not one for every example
                product = self.product[k] + flat.reshape(self.product[k].shape) + bias
                values = dict(zip(names, session.run(names, {**self.given[k], self.site.y: product}), strict=True))
                yield [rows_of(values[name], batch) for name in outputs.names]


def site_of(model: ir.Model, analysis: Analysis, group: Group) -> RepairSite | None:
    """The one product that sums the units of a group, where nothing else does anything but carry them; else None."""
    group_sites = sites(model, analysis, {group.dim})
    solution = analysis.solution
    sums = [each for each in solution.contractions() if group.dim in each.summed]
    if not group.exact or len(group_sites) != 1 or len(sums) != 1:
        return None
    reduces = [r for r in solution.reduces if group.dim in solution.leaves(solution.inputs[r.node][r.index], r.axis)]
    if any(each.node != sums[0].node for each in reduces):
        return None
    (site,) = group_sites
    if not isinstance(site, RepairSite) or site.window is not None:
        return None
    return site if len(list(model.graph.initializers[site.weight].uses())) == 1 else None


def tail_of(model: ir.Model, site: RepairSite, outputs: Outputs) -> Tail | None:
    """What follows a product, with everything that it is given on the examples; None where that is too much.

    Args:
        model: The normalized model.
        site: The product.
        outputs: The examples, and which outputs are compared.
    """
    whole = widened(model)
    behind, crossing = _behind(whole.graph, site.y)
    ends = [value.name or "" for value in whole.graph.outputs]
    if not set(outputs.names) <= {value.name for value in behind} & set(ends):
        return None
    inputs = {value.name or "" for value in whole.graph.inputs}
    computed = [name for name in crossing if name not in inputs]
    names = list(dict.fromkeys([site.x, site.y, *computed]))
    observed = with_outputs(whole, [ObservedValue(name) for name in names])
    crossing_values, features, product = list[dict[str, Array]](), list[Array](), list[Array]()
    size = 0
    for batch, arrays in run_batches(observed, outputs.batches, names, outputs.providers):
        values = dict(zip(names, arrays, strict=True))
        crossing_values.append(
            {name: values[name] for name in computed} | {n: batch.feeds[n] for n in crossing if n in inputs}
        )
        features.append(values[site.x])
        product.append(values[site.y])
        size += sum(array.nbytes for array in values.values())
        if size > MEMORY:
            return None
    graph = ir.convenience.extract(whole.graph, [site.y, *crossing], outputs.names)
    _state_types(graph.inputs, {**crossing_values[0], site.y: product[0]})
    tail = ir.Model(graph, ir_version=whole.ir_version)
    return Tail(site, tail, tuple(crossing_values), tuple(features), tuple(product))


class Tails:
    """Harms of groups that one product sums, one after the other; what the last one needs is kept."""

    def __init__(
        self, model: ir.Model, analysis: Analysis, inputs: Inputs, outputs: Outputs, moments: Gram | None
    ) -> None:
        """Look at nothing yet.

        Args:
            model: The normalized model.
            analysis: Its analysis.
            inputs: What weights are re-fitted on.
            outputs: The examples, and what the whole model says of them.
            moments: See `gather_moments`.
        """
        self.model, self.analysis, self.inputs, self.outputs, self.moments = model, analysis, inputs, outputs, moments
        self._last: tuple[str, Tail | None] = "", None

    def harm(self, selection: Selection) -> float | None:
        """How far the outputs are from the original's after the repair; None where the slim model must say.

        Args:
            selection: Of one group.
        """
        if len(selection.keep) != 1:
            return None
        group = self.analysis.group(next(iter(selection.keep)))
        site = site_of(self.model, self.analysis, group)
        if site is None:
            return None
        if self._last[0] != site.y:
            self._last = site.y, tail_of(self.model, site, self.outputs)
        tail = self._last[1]
        change = None if tail is None else self._change(selection)
        if tail is None or change is None:
            return None
        return divergence_of(tail.outputs(change, self.outputs), self.outputs)

    def _change(self, selection: Selection) -> tuple[Array, Array] | None:
        keeps = selection.keeps(self.analysis.groups)
        sites_evidence = list(evidence(self.model, self.analysis, keeps, self.inputs, moments=self.moments))
        if len(sites_evidence) != 1 or not isinstance(sites_evidence[0], Evidence):
            return None
        task = sites_evidence[0].task
        assert task.weight.const_value is not None
        _, change = solved(sites_evidence[0], "auto")
        whole = task.sites[0].matrix(task.weight.const_value.numpy())
        matrix = np.where(task.kept[:, None], 0.0, -whole)
        if change is not None and change.weight is not None:
            matrix = matrix + np.where(task.kept[:, None], change.weight, 0.0)
        return matrix, np.zeros(whole.shape[1]) if change is None else change.bias


def _behind(graph: ir.Graph, name: str) -> tuple[set[ir.Value], list[str]]:
    """The values that follow from one, itself among them, and the names of what else is read on the way."""
    start = next(value for node in graph for value in node.outputs if value.name == name)
    behind: set[ir.Value] = {start}
    names: dict[str, None] = {}
    for node in graph:
        if not any(value in behind for value in node.inputs if value is not None):
            continue
        behind.update(node.outputs)
        for value in node.inputs:
            if value is not None and value not in behind and not value.is_initializer():
                names[value.name or ""] = None
    return behind, list(names)


def _state_types(inputs: Sequence[ir.Value], arrays: dict[str, Array]) -> None:
    for value in inputs:
        array = arrays[value.name or ""]
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape([None] * array.ndim)
