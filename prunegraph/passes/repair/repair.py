"""Repair a pruned model without training: re-fit what reads removed units on calibration data.

A re-fitted weight is kept where the error on held-out samples falls.  At once, statistics are those of the whole model:
one pass tells what every weight was given, and a least-squares problem a weight how to make most of its old output from
what stays.  Front to back, see `sweep`; where both are tried the outputs decide.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.bodies import is_end
from prunegraph.analysis.slots import Keeps
from prunegraph.arrays import Mask
from prunegraph.errors import PruneGraphError
from prunegraph.observe.data import every_nth
from prunegraph.observe.divergence import divergence, outputs_of
from prunegraph.observe.stream import Inputs, SampleProgress, observe
from prunegraph.passes.repair.fit import RIDGE, TRIED, Change, judged
from prunegraph.passes.repair.outcome import Outcome, Repaired
from prunegraph.passes.repair.pieces import TooMuchOnDisk
from prunegraph.passes.repair.sites import RepairSite, UnrepairedSum, sites
from prunegraph.passes.repair.statistics import Gram
from prunegraph.passes.repair.sweep import Swept, sweep
from prunegraph.passes.repair.write import Written, amend, differing, insert, put
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups

logger = logging.getLogger(__name__)

MEMORY = 4 << 30
"""Bytes of statistics that are held at a time; what needs more is gathered in several passes."""

SAMPLES = 2048
"""Samples that are looked at, the first of the data: a training set needs not be read to its end."""

APART = 8
"""One sample in so many chooses between repair at once and a sweep, and has no part in the sweep."""

SWEPT_BYTES = 1 << 30
"""Bytes of weights in float32 of the largest model that "auto" sweeps though no norm lost units."""

SWEPT_DISK = 4 << 30
"""Bytes of activations at one boundary beyond which "auto" gives such a sweep up."""

ENOUGH = 16
"""Samples set apart without which outputs do not choose for "auto", unless norms lost units."""

NEGLIGIBLE = 1e-5
"""A divergence that is not worth a sweep."""

Prepare = Callable[[ir.Model, Keeps], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Task:
    """A weight that loses inputs, with all its uses, and which inputs stay."""

    weight: ir.Value
    sites: tuple[RepairSite, ...]
    kept: Mask

    @property
    def entries(self) -> int:
        """How many numbers its statistics are."""
        return 2 * (len(self.kept) + 1) ** 2 * len({site.key for site in self.sites})

    def outcome(self, method: str = "none", errors: dict[str, float] | None = None, reason: str = "") -> Outcome:
        """What became of it."""
        where = tuple(site.label for site in self.sites)
        features = (len(self.kept), int(self.kept.sum()))
        return Outcome(self.weight.name or "", where, method, errors or {}, features, reason)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of the inputs of a weight: see `fit.judged`."""

    task: Task
    sums: npt.NDArray[Any]
    counts: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Cut:
    """What was cut of a model, and what it is repaired on; see `repaired`."""

    model: ir.Model
    analysis: Analysis
    keeps: Keeps
    inputs: Inputs
    prepare: Prepare | None
    amended: ir.Model | None
    progress: SampleProgress | None

    @property
    def exact(self) -> bool:
        """Whether no norm lost units."""
        return all(group.exact for group in self.analysis.groups if group.dim in self.keeps)

    @property
    def large(self) -> bool:
        """Whether it has more weights than a sweep that nobody asked for may run in float32."""
        tensors = (value.const_value for value in self.model.graph.initializers.values())
        return sum(4 * tensor.size for tensor in tensors if tensor is not None) > SWEPT_BYTES

    def bare(self) -> ir.Model:
        """The slim model without any repair."""
        slim = remove_whole_groups(self.model, self.analysis.solution, self.keeps)
        if self.prepare is not None:
            self.prepare(slim.model, self.keeps)
        return cleanup(slim.model, self.analysis.solution, slim.lengths)


def repaired(
    model: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
    inputs: Inputs,
    method: str = "auto",
    *,
    ridge: float = RIDGE,
    memory: int = MEMORY,
    moments: Gram | None = None,
    prepare: Prepare | None = None,
    amended: ir.Model | None = None,
    sweep_exact: bool = True,
    progress: SampleProgress | None = None,
) -> tuple[ir.Model | None, Repaired]:
    """A slim model whose weights make up for what was removed, and what was done to them.

    All weights at once, or front to back (see `sweep`): where both are tried, what the slim model puts out on samples
    that the sweep has not seen decides.

    Args:
        model: The normalized model, whole; it is not changed.
        analysis: Its analysis.
        keeps: What stays.
        inputs: Calibration data, see `SAMPLES`; no labels are read. Every fourth sample judges, the others are fitted.
        method: "bias" (fold the mean of what goes into the bias), "lstsq" (ridge least squares for weight and bias),
            "auto" (whichever is best, and a sweep, unless norms lost nothing and the model is large or samples are few)
            or "sweep" (the same, with one in any case); in all cases only where the error on held-out samples falls.
        ridge: See `fit.RIDGE`.
        memory: Bytes of statistics that are held at a time.
        moments: What `gather_moments` saw of the data, to try several selections after one pass.
        prepare: Changes what Shrink makes, in place, whatever is repaired then; returns what it changed.
        amended: The whole model with weights that were re-fitted otherwise: what is cut in place of `model`.
        sweep_exact: Whether "auto" sweeps where no norm lost units, too.
        progress: Called with the number of samples seen.

    Returns:
        The model, None where no weight could be improved: the slim model stays what it is.
    """
    cut = _Cut(model, analysis, keeps, inputs, prepare, amended, progress)
    slim, at_once = _at_once(cut, "auto" if method == "sweep" else method, ridge, memory, moments)
    at_once = replace(at_once, requested=method)
    if method not in ("auto", "sweep"):
        return slim, at_once
    in_any_case = method == "sweep" or not cut.exact
    if any(map(is_end, model.graph)):
        if in_any_case:
            logger.warning("a model with weights inside of a loop is repaired at once, not front to back")
        return slim, at_once
    if in_any_case:
        return _with_sweep(cut, (slim, at_once), disk=None)
    if not sweep_exact or cut.large:
        return slim, at_once
    return _with_sweep(cut, (slim, at_once), disk=SWEPT_DISK)


def _with_sweep(
    cut: _Cut, at_once: tuple[ir.Model | None, Repaired], disk: int | None
) -> tuple[ir.Model | None, Repaired]:
    """The better one of what was repaired at once and of a sweep, or nothing, by outputs on samples set apart."""
    slim, done = at_once
    inputs = cut.inputs.first(SAMPLES)
    apart = replace(inputs, source=every_nth(inputs.source, APART, APART - 1))
    if sum(1 for _ in islice(apart.source.read(), ENOUGH)) < (1 if disk is None else ENOUGH):
        return at_once
    reference = outputs_of(cut.model, cut.analysis, apart)
    ways = {"none": divergence(cut.bare(), reference)}
    if slim is not None:
        ways["at once"] = divergence(slim, reference)
    if disk is not None and not NEGLIGIBLE < min(ways.values()) < np.inf:
        return at_once
    fit_inputs = replace(inputs, source=every_nth(inputs.source, APART, APART - 1, others=True))
    try:
        front_to_back, swept, written = _swept(cut, fit_inputs, disk)
    except (TooMuchOnDisk, PruneGraphError) as error:
        if disk is None:
            raise
        logger.info("repaired at once, not front to back: %s", error)
        return at_once
    if swept.weights:
        ways["sweep"] = divergence(front_to_back, reference)
    done = replace(done, ways=ways)
    if done.way == "sweep":
        return front_to_back, replace(done, outcomes=swept.outcomes, written=written)
    return (slim, done) if done.way == "at once" else (None, replace(done, written=Written()))


def _swept(cut: _Cut, inputs: Inputs, disk: int | None) -> tuple[ir.Model, Swept, Written]:
    """The slim model after a sweep, what that did, and which of its initializers differ from those of `_Cut.bare`."""
    solution = cut.analysis.solution
    bare = remove_whole_groups(cut.amended or cut.model, solution, cut.keeps)
    changed = dict.fromkeys(cut.prepare(bare.model, cut.keeps) if cut.prepare is not None else ())
    if cut.amended is not None:
        unrepaired = remove_whole_groups(cut.model, solution, cut.keeps)
        changed |= dict.fromkeys(differing(bare.model.graph, unrepaired.model.graph))
    swept = sweep(cut.model, bare.model, cut.analysis, cut.keeps, inputs, cut.progress, disk=disk)
    put(bare.model, swept.weights)
    changed |= dict.fromkeys(swept.weights)
    slim = cleanup(bare.model, solution, bare.lengths)
    return slim, swept, Written(tuple(name for name in changed if name in slim.graph.initializers))


def _at_once(
    cut: _Cut, method: str, ridge: float, memory: int, moments: Gram | None
) -> tuple[ir.Model | None, Repaired]:
    """Every weight by the statistics of the whole model; see `repaired`."""
    model, analysis, keeps, inputs = cut.model, cut.analysis, cut.keeps, cut.inputs
    outcomes: list[Outcome] = []
    changes: list[tuple[tuple[RepairSite, ...], Change]] = []
    for each in evidence(model, analysis, keeps, inputs, memory=memory, moments=moments, progress=cut.progress):
        outcome, change = (each, None) if isinstance(each, Outcome) else solved(each, method, ridge)
        outcomes.append(outcome)
        if change is not None and isinstance(each, Evidence):
            changes.append((each.task.sites, change))
        what = outcome.reason or f"{outcome.before:.3f} -> {outcome.after:.3f}"
        logger.info("repair %s: %s, %s", outcome.weight, outcome.method, what)
    if not changes and cut.amended is None:
        return None, Repaired(method, tuple(outcomes))
    slim, written = rewritten(model, analysis, keeps, changes, cut.prepare, cut.amended)
    return slim, Repaired(method, tuple(outcomes), written)


def evidence(
    model: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
    inputs: Inputs,
    *,
    memory: int = MEMORY,
    moments: Gram | None = None,
    progress: SampleProgress | None = None,
) -> Iterator[Evidence | Outcome]:
    """What the data say of every weight that loses inputs, or why nothing can be tried; see `repaired`."""
    inputs = inputs.first(SAMPLES)
    tasks: list[Task] = []
    for task in _tasks(model, analysis, keeps):
        if isinstance(task, Task):
            tasks.append(task)
        else:
            yield task
    for chunk, dtype in _chunks(tasks, memory):
        if dtype is None:
            yield from (task.outcome(reason="its inputs are too many for second moments") for task in chunk)
            continue
        gram = moments
        if gram is None or any(site.key not in gram.sites for task in chunk for site in task.sites):
            gram = Gram([site for task in chunk for site in task.sites], dtype=dtype)
            observe(model, inputs, [gram], progress=progress)
        for task in chunk:  # all uses of one weight are one problem: their statistics add up
            parts = [gram.sums(key) for key in dict.fromkeys(site.key for site in task.sites)]
            sums = parts[0][0] if len(parts) == 1 else np.sum([each for each, _ in parts], axis=0)
            yield Evidence(task, sums, np.sum([each for _, each in parts], axis=0))


def gather_moments(
    model: ir.Model,
    analysis: Analysis,
    inputs: Inputs,
    *,
    memory: int = MEMORY,
    progress: SampleProgress | None = None,
) -> Gram | None:
    """What the data say of every weight that could lose inputs, in one pass for any number of selections.

    Returns:
        The statistics, None where they do not fit into memory together.
    """
    dims = {group.dim for group in analysis.groups}
    places = [place for place in sites(model, analysis, dims) if isinstance(place, RepairSite)]
    shapes = {name: value.shape.numpy() for name, value in model.graph.initializers.items() if value.shape is not None}
    gram = Gram(places)
    if sum(16 * (site.features(shapes[site.weight]) + 1) ** 2 for site in gram.sites.values()) > memory:
        return None
    observe(model, inputs.first(SAMPLES), [gram], progress=progress)
    return gram


def solved(observed: Evidence, method: str, ridge: float = RIDGE) -> tuple[Outcome, Change | None]:
    """The best of what was asked for, see `repaired`."""
    task = observed.task
    assert task.weight.const_value is not None
    matrix = task.sites[0].matrix(task.weight.const_value.numpy())
    best = judged(observed.sums, observed.counts, task.kept, matrix, TRIED[method], ridge)
    reason = "" if best.errors else "too few samples to hold some out"
    return task.outcome(best.method, dict(best.errors), reason), best.change


def rewritten(
    model: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
    changes: Sequence[tuple[Sequence[RepairSite], Change]],
    prepare: Prepare | None = None,
    amended: ir.Model | None = None,
) -> tuple[ir.Model, Written]:
    """The slim model of a whole one with changed weights, and what sets it apart from the one without the changes."""
    twin = (amended or model).clone()
    missing = amend(twin, changes)
    cut, bare = (remove_whole_groups(each, analysis.solution, keeps) for each in (twin, model))
    added = insert(cut.model, analysis, keeps, missing)
    if prepare is not None:
        prepare(cut.model, keeps)
    changed = differing(cut.model.graph, bare.model.graph)
    slim = cleanup(cut.model, analysis.solution, cut.lengths)
    left = slim.graph.initializers  # copies that are equal have become one
    return slim, Written(*(tuple(name for name in names if name in left) for names in (changed, added)))


def _tasks(model: ir.Model, analysis: Analysis, keeps: Keeps) -> Iterator[Task | Outcome]:
    by_weight: dict[str, list[RepairSite]] = defaultdict(list)
    left: dict[str, list[UnrepairedSum]] = defaultdict(list)
    for site_or_loss in sites(model, analysis, set(keeps)):
        if isinstance(site_or_loss, RepairSite):
            by_weight[site_or_loss.weight].append(site_or_loss)
        else:
            left[site_or_loss.weight].append(site_or_loss)
    for name, losses in left.items():
        where = tuple(loss.label for loss in (*losses, *by_weight.pop(name, ())))
        yield Outcome(name, where, "none", {}, reason=losses[0].reason)
    for name, uses in by_weight.items():
        weight = model.graph.initializers[name]
        assert weight.const_value is not None
        kept = uses[0].kept(analysis, keeps, tuple(weight.const_value.shape.numpy()))
        where = tuple(site.label for site in uses)
        if kept is None:
            yield Outcome(name, where, "none", {}, reason="what stays differs from output to output")
        elif len(list(weight.uses())) != len(uses) or len({(site.turned, site.factor) for site in uses}) > 1:
            yield Outcome(name, where, "none", {}, reason="the weight has other uses too")
        elif not kept.all():
            yield Task(weight, tuple(uses), kept)


def _chunks(tasks: Sequence[Task], memory: int) -> Iterator[tuple[list[Task], type[np.floating[Any]] | None]]:
    """Tasks whose statistics fit into memory together, those too wide for float64 by themselves in float32."""
    chunk: list[Task] = []
    total = 0
    for task in tasks:
        if task.entries * 8 > memory:
            yield [task], np.float32 if task.entries * 4 <= memory else None
            continue
        if chunk and total + task.entries * 8 > memory:
            yield chunk, np.float64
            chunk, total = [], 0
        chunk.append(task)
        total += task.entries * 8
    if chunk:
        yield chunk, np.float64
