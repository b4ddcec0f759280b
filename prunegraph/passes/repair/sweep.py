"""Repair front to back: every weight that lost inputs or outputs is re-fitted on what the cut model gives it by then.

One forward sweep: products of weights are fitted towards what the whole model makes, those that a residual sum follows
towards that sum, norms channel by channel.  What went wrong before a place is so made up for there, also what no fit
apart from the others can say, such as a residual width that norms take their statistics over.  Both models are run
piece by piece, two passes over the data in all, with one boundary of activations on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.kept_positions import Positions
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.read_weight import initializer_tensor, read_initializer
from prunegraph.analysis.slots import Keeps, kept_positions
from prunegraph.arrays import Array
from prunegraph.atomic_write import temporary_folder
from prunegraph.observe.data import Sample
from prunegraph.observe.stream import Inputs, SampleProgress
from prunegraph.observe.text import Batch
from prunegraph.passes.repair.outcome import Outcome
from prunegraph.passes.repair.pieces import Pieces
from prunegraph.passes.repair.residual_fit import Fitted, NormMoments, ProductMoments
from prunegraph.passes.repair.sites import RepairSite, cut_products
from prunegraph.passes.repair.statistics import FIT, JUDGE, draw_positions, features, floored
from prunegraph.passes.repair.write import own_bias, put
from prunegraph.runtime.widen import widened, widened_feeds

logger = logging.getLogger(__name__)

WIDEST = 16384
"""Features of a weight beyond which its second moments take too much memory."""


@dataclass(frozen=True, slots=True)
class Place:
    """A weight or a norm of the cut model that is re-fitted.

    Attributes:
        node: The node, by position in the cut model.
        y: What it makes.
        weight: Its weight, or gain.
        bias: What is added; empty where nothing is.
        beside: The other part of the residual sum that follows; empty where none does.
        product: How it spells its sum; None for a norm.
    """

    node: int
    y: str
    weight: str
    bias: str = ""
    beside: str = ""
    product: RepairSite | None = None

    @property
    def read(self) -> list[str]:
        """The values of the cut model that it is fitted on."""
        return [*([self.product.x] if self.product else []), *self.wanted]

    @property
    def wanted(self) -> list[str]:
        """The values of the whole model that say what it should make."""
        return [self.y, *([self.beside] if self.beside else [])]


@dataclass
class _Task:
    """A place and what was seen of it."""

    place: Place
    moments: ProductMoments | NormMoments
    features: tuple[int, int]

    def outcome(self, fitted: Fitted, where: str) -> Outcome:
        reason = "" if fitted.errors else "too few samples to hold some out"
        return Outcome(self.place.weight, (where,), fitted.method, dict(fitted.errors), self.features, reason)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    Attributes:
        weights: New numbers by initializer of the cut model.
        outcomes: One a place.
    """

    weights: Mapping[str, Array]
    outcomes: tuple[Outcome, ...]


@dataclass
class _Stage:
    """Places that do not depend on each other, and the node that they begin with."""

    start: int
    places: list[Place] = field(default_factory=list)


def sweep(
    model: ir.Model,
    cut: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
    inputs: Inputs,
    progress: SampleProgress | None = None,
    *,
    disk: int | None = None,
) -> Swept:
    """Re-fit the weights and norms of a cut model, front to back.

    Args:
        model: The normalized model, whole.
        cut: What Shrink made of it; it is not changed.
        analysis: The analysis of `model`.
        keeps: What stays.
        inputs: Calibration data; no labels are read. Every fourth sample judges, the others are fitted.
        progress: Called with the number of samples that have passed through the whole of both models.
        disk: How many bytes of activations may lie at one boundary; any number if None.

    Raises:
        TooMuchOnDisk: There are more.
        PruneGraphError: ONNX Runtime does not run one of the models on the data.
    """
    places, unfit = _places(model, cut, analysis, keeps)
    if not places:
        return Swept({}, tuple(unfit))
    with temporary_folder() as folder:
        sweeping = _Sweep(model, cut, Positions(analysis.solution, keeps), inputs, folder, disk)
        stages = _stages(cut, places)
        outcomes: list[Outcome] = []
        for number, stage in enumerate(stages):
            end = stages[number + 1].start if number + 1 < len(stages) else None
            outcomes += sweeping.fit(stage, end)
            if progress is not None:
                progress((number + 1) * sweeping.samples // len(stages))
    return Swept(sweeping.changed, (*unfit, *outcomes))


class _Sweep:
    """Both models on their way through the data."""

    def __init__(
        self, model: ir.Model, cut: ir.Model, positions: Positions, inputs: Inputs, folder: Path, disk: int | None
    ) -> None:
        self.positions, self.changed = positions, dict[str, Array]()
        (folder / "whole").mkdir()
        (folder / "cut").mkdir()
        self.whole = Pieces(widened(model), folder / "whole", inputs.providers, disk)
        self.cut = Pieces(widened(cut.clone()), folder / "cut", inputs.providers, disk)
        self.batches: list[Batch] = []
        for number, batch in enumerate(inputs.batches()):
            feeds = widened_feeds(batch.feeds)
            self.whole.begin(number, feeds)
            self.cut.begin(number, feeds)
            self.batches.append(_light(batch))
        self.samples = sum(len(batch.samples) for batch in self.batches)

    def fit(self, stage: _Stage, end: int | None) -> list[Outcome]:
        """Fit the places of a stage, and run both models to the next one, which begins with the node `end`."""
        behind = self._same_node(end) if end is not None else len(self.whole.nodes)
        until = end if end is not None else len(self.cut.nodes)
        tasks = [self._task(place) for place in stage.places if self._has(place, until, behind)]
        whole = self.whole.run(
            len(self.batches), behind, _names(task.place.wanted for task in tasks), move=end is not None
        )
        cut = self.cut.run(len(self.batches), until, _names(task.place.read for task in tasks), move=False)
        samples_before = 0
        for batch, whole_values, cut_values in zip(self.batches, whole, cut, strict=True):
            for task in tasks:
                self._add(task, batch, samples_before, whole_values, cut_values)
            samples_before += len(batch.samples)
        outcomes = []
        for task in tasks:
            fitted = task.moments.fitted(biased=bool(task.place.bias))
            self._amend(task.place, fitted)
            node = self.cut.nodes[task.place.node]
            outcome = task.outcome(fitted, node.name or "")
            outcomes.append(outcome)
            logger.info("sweep %s: %s, %.3f -> %.3f", outcome.weight, outcome.method, outcome.before, outcome.after)
        if end is not None:
            for _ in self.cut.run(len(self.batches), until, [], move=True):
                pass
        return outcomes

    def _same_node(self, position: int) -> int:
        place = self.whole.place(self.cut.nodes[position].outputs[0].name or "")
        assert place is not None
        return place

    def _has(self, place: Place, until: int, behind: int) -> bool:
        """Whether what it is fitted on is made by then in both models, and not before what was run last."""
        for pieces, end, names in ((self.cut, until, place.read), (self.whole, behind, place.wanted)):
            if any((where := pieces.place(name)) is None or where >= end for name in names):
                return False
        position = self.whole.place(place.y)
        return position is not None and position >= self.whole.position

    def _task(self, place: Place) -> _Task:
        tensors = (initializer_tensor(pieces.model, place.weight) for pieces in (self.whole, self.cut))
        sizes = [tuple(tensor.shape.numpy()) for tensor in tensors]
        if place.product is None:
            return _Task(place, NormMoments(), (sizes[0][-1], sizes[1][-1]))
        count = place.product.features
        return _Task(place, ProductMoments(), (count(sizes[0]), count(sizes[1])))

    def _add(
        self,
        task: _Task,
        batch: Batch,
        samples_before: int,
        whole_values: Mapping[str, Array],
        cut_values: Mapping[str, Array],
    ) -> None:
        place = task.place
        target = self.positions.cut(place.y, whole_values[place.y]).astype(np.float32)
        lacks = target - cut_values[place.y]
        if place.beside and cut_values[place.beside].shape == cut_values[place.y].shape:
            other = self.positions.cut(place.beside, whole_values[place.beside])
            lacks, target = lacks + (other - cut_values[place.beside]), target + other
        axis = place.product.out if place.product is not None else -1
        lacks, target = np.moveaxis(lacks, axis, -1), np.moveaxis(target, axis, -1)
        chosen, held_out = draw_positions(target.shape[:-1], batch, samples_before)
        lacks, target = (each.reshape(-1, each.shape[-1])[chosen] for each in (lacks, target))
        norms = np.square(target.astype(np.float64)).sum(axis=-1)
        scale = 1 / np.sqrt(floored(norms)).astype(np.float32)
        for part, where in ((FIT, ~held_out), (JUDGE, held_out)):
            if not where.any():
                continue
            if place.product is not None:
                rows = features(cut_values[place.product.x], place.product, chosen[where])
            else:
                rows = cut_values[place.y].reshape(-1, cut_values[place.y].shape[-1])[chosen[where]]
            task.moments.add(part, rows, lacks[where], scale[where], float(np.dot(norms[where], scale[where] ** 2)))

    def _amend(self, place: Place, fitted: Fitted) -> None:
        if fitted.change is not None:
            weight = self._array(place.weight)
            if place.product is not None:
                change = place.product.weight_of(fitted.change, weight.shape)
            else:
                change = weight * fitted.change
                if place.bias:
                    self._set(place.bias, self._array(place.bias) * (1 + fitted.change))
            self._set(place.weight, weight + change)
        if fitted.offset is not None and fitted.method != "none":
            bias = self._array(place.bias)
            self._set(place.bias, bias + fitted.offset.reshape(bias.shape))

    def _array(self, name: str) -> Array:
        return read_initializer(self.cut.model, name).astype(np.float64)

    def _set(self, name: str, array: Array) -> None:
        self.changed[name] = array
        put(self.cut.model, {name: array})


def _names(lists: Iterator[list[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))


def _light(batch: Batch) -> Batch:
    """What says which positions of a batch count, without what it gives the model."""
    feeds = {name: np.broadcast_to(np.zeros((), array.dtype), array.shape) for name, array in batch.feeds.items()}
    return replace(batch, feeds=feeds, samples=(Sample(),) * len(batch.samples), tokens=())


# ---- which places, and in what order ---------------------------------------------------------------------------------


def _places(model: ir.Model, cut: ir.Model, analysis: Analysis, keeps: Keeps) -> tuple[list[Place], list[Outcome]]:
    """Everything that can be fitted, in the order of the cut model, and why the rest cannot."""
    nodes = list(cut.graph)
    makers = {value.name: k for k, node in enumerate(nodes) for value in node.outputs if value.name}
    whole = {value.name for node in model.graph for value in node.outputs}
    places: list[Place] = []
    unfit: list[Outcome] = []
    for site in cut_products(model, analysis, keeps):
        if not isinstance(site, RepairSite):
            unfit.append(Outcome(site.weight, (site.label,), "none", {}, reason=site.reason))
            continue
        weight = cut.graph.initializers.get(site.weight)
        if site.y not in makers or weight is None or weight.const_value is None:
            continue  # it went with its sub-block
        reason = _unfit(weight, site)
        if reason:
            unfit.append(Outcome(site.weight, (site.label,), "none", {}, reason=reason))
            continue
        node = nodes[makers[site.y]]
        bias = _own(own_bias(node, _outputs(site, tuple(weight.const_value.shape.numpy()))))
        places.append(Place(makers[site.y], site.y, site.weight, bias.name or "" if bias else "", _beside(node), site))
    places += [p for k, node in enumerate(nodes) if (p := _norm(k, node, analysis, keeps)) and p.y in whole]
    return sorted(places, key=lambda place: place.node), unfit


def _unfit(weight: ir.Value, site: RepairSite) -> str:
    """Why a weight is left alone; empty where it is not."""
    assert weight.const_value is not None
    if len(list(weight.uses())) > 1 or weight.is_graph_output():
        return "the weight has other uses too"
    if site.features(tuple(weight.const_value.shape.numpy())) > WIDEST:
        return "its inputs are too many for second moments"
    return ""


def _outputs(site: RepairSite, shape: Sequence[int]) -> int:
    return shape[0] if site.turned else shape[1]


def _norm(position: int, node: ir.Node, analysis: Analysis, keeps: Keeps) -> Place | None:
    """A norm over a last axis that got shorter, with parameters of its own."""
    norm = traits_of(node).norm
    if norm is None or norm.by_channel or len(node.inputs) <= norm.scale:
        return None
    gain = _own(node.inputs[norm.scale])
    if gain is None or gain.name not in analysis.solution.axes:
        return None
    masks = kept_positions(analysis.solution.resolve(gain.name or ""), keeps, analysis.solution.dim_size)
    if len(masks) != 1 or masks[0] is None or masks[0].all():
        return None
    offset = node.inputs[norm.scale + 1] if norm.centred and len(node.inputs) > norm.scale + 1 else None
    own = _own(offset)
    if offset is not None and own is None:
        return None
    return Place(position, node.outputs[0].name or "", gain.name or "", own.name or "" if own else "")


def _own(value: ir.Value | None) -> ir.Value | None:
    """A float initializer that nobody else reads."""
    if value is None or not value.is_initializer() or value.const_value is None or value.is_graph_output():
        return None
    floating = value.const_value.dtype.is_floating_point()
    return value if floating and len(list(value.uses())) == 1 else None


def _beside(node: ir.Node) -> str:
    """What is added to what a node makes, apart from a bias; empty where nothing is, or others read it before."""
    value = node.outputs[0]
    for _ in range(2):
        users = list(value.uses())
        if len(users) != 1 or value.is_graph_output():
            return ""
        user, index = users[0]
        norm = traits_of(user).norm
        sums_first = index < 2 if norm is not None and norm.sum_output is not None else len(user.inputs) == 2
        if not traits_of(user).adds or not sums_first:
            return ""
        other = user.inputs[1 - index]
        if other is None or not other.is_initializer():
            return other.name or "" if other is not None else ""
        value = user.outputs[0]
    return ""


def _stages(cut: ir.Model, places: Sequence[Place]) -> list[_Stage]:
    """Places by stages: none of a stage depends on another one of it."""
    at = {place.node: place for place in places}
    stages: list[_Stage] = []
    reached: set[ir.Value] = set()
    for position, node in enumerate(cut.graph):
        behind = any(value in reached for value in node.inputs if value is not None)
        place = at.get(position)
        if place is not None:
            if behind or not stages:
                stages.append(_Stage(position if stages else 0))
                reached, behind = set(), True
            stages[-1].places.append(place)
            behind = True
        if behind:
            reached.update(node.outputs)
    return stages
