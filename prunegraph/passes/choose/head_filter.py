"""Candidate filtering (SAP, arXiv 2512.19125): heads go only as long as the model stays good enough.

Every candidate is removed alone, candidates are ranked by the harm that they do, and removed one after the other until
the metric falls below a share of the original's.  All of it runs on one session with a head mask.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.selection import Selection
from prunegraph.arrays import Index
from prunegraph.errors import UsageError
from prunegraph.extras import needs_extra
from prunegraph.observe.attention_sites import HEAD_KINDS, Attention
from prunegraph.observe.head_mask import HeadMask, HeadMaskSession, head_mask_of, no_head_masked, with_head_mask
from prunegraph.observe.metric import Evaluate, make_metric
from prunegraph.observe.stream import Inputs
from prunegraph.runtime.providers import CPU
from prunegraph.runtime.session import open_session
from prunegraph.runtime.widen import widened

POLICIES = ("stop", "skip")
Unit = tuple[str, int]
"""A group's id and the number of a unit; of a group that is chosen row by row, which removal of every row it is."""


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """How candidates are filtered.

    Attributes:
        tolerance: Which share of the original's metric must be left.
        policy: What happens when a removal falls below it: "stop" there, or "skip" that head and try the next.
        metric: "auto", "accuracy", "agreement", "cosine", "perplexity" (that of the original is divided by that of what
            is left), or a function from a session to a number, higher is better.
        output: The output that is judged; the first if empty.
        jobs: Evaluations at a time; None leaves it to joblib, and so to `joblib.parallel_config`.
    """

    tolerance: float = 0.95
    policy: str = "stop"
    metric: str | Evaluate = "auto"
    output: str = ""
    jobs: int | None = None

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            UsageError: a value cannot be.
        """
        if not 0 <= self.tolerance <= 1:
            raise UsageError(
                f"the tolerance must be in [0, 1], not {self.tolerance}", hint="0.95 keeps 95 % of the metric"
            )
        if self.policy not in POLICIES:
            raise UsageError(f"there is no policy {self.policy!r}", hint=f"choose {' or '.join(POLICIES)}")


@dataclass(frozen=True, slots=True)
class Filtered:
    """What candidate filtering did.

    Attributes:
        selection: What stays.
        candidates: The candidates by rising harm, with the metric without each alone.
        removed: Those that went, in this order.
        metric: The name of the metric.
        before: Its value for the whole model.
        after: Its value without the removed heads.
        evaluations: How often the data were run, the original's run included.
        ratio: Which share of all units of the candidates' groups went.
    """

    selection: Selection
    candidates: tuple[tuple[Unit, float], ...]
    removed: tuple[Unit, ...]
    metric: str
    before: float
    after: float
    evaluations: int
    ratio: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return {
            "metric": self.metric,
            "before": self.before,
            "after": self.after,
            "candidates": len(self.candidates),
            "removed": len(self.removed),
            "ratio": self.ratio,
            "evaluations": self.evaluations,
        }


def filter_candidates(
    model: ir.Model,
    analysis: Analysis,
    selection: Selection,
    inputs: Inputs | None,
    options: FilterOptions | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Filtered:
    """Take back from a selection the heads that cost too much.

    Removed units of head groups are the candidates; where a group is chosen row by row (query heads of KV groups),
    a candidate takes one unit of every row, the first that goes of each, the second, and so on, for rows keep equal
    numbers.  Everything else of the selection stays as it is.

    Args:
        model: The normalized model.
        analysis: Its analysis.
        selection: What would stay.
        inputs: Validation data; they are held in memory, tokenized. None if `metric` is a function.
        options: See there.
        progress: Called with the number of evaluations done.

    Raises:
        UsageError: there are no candidates, or no data.
    """
    options = options or FilterOptions()
    groups = {group.id: group for group in analysis.groups if group.kind in HEAD_KINDS}
    heads = {name: mask for name, mask in selection.keep.items() if name in groups}
    members = {unit: units for name, mask in heads.items() for unit, units in _candidates(name, mask)}
    if not members:
        raise UsageError("no head is to be removed, so none can be filtered", hint="give a ratio of head or kv_group")
    twin, sites = with_head_mask(widened(model), analysis)
    run_by = inputs.providers if inputs is not None else CPU
    with ExitStack() as stack:
        session = stack.enter_context(open_session(twin, providers=run_by))
        evaluate, name = _evaluate(options, inputs, model, analysis, HeadMaskSession(session, no_head_masked(sites)))
        worker = _Worker(twin, evaluate, session, run_by)
        search = _Search(worker, sites, heads, members, options, progress)
        return search.run(selection, name)


def _candidates(name: str, mask: npt.NDArray[np.bool_]) -> Iterator[tuple[Unit, Index]]:
    """What can go by itself of a group, and which units (flat) go with it."""
    if mask.ndim == 1:
        yield from (((name, int(unit)), np.array([unit])) for unit in np.flatnonzero(~mask))
        return
    removed = np.flatnonzero(~mask).reshape(*mask.shape[:-1], -1)  # rows keep equal numbers
    for k in range(removed.shape[-1]):
        yield (name, k), removed[..., k].reshape(-1)


def _evaluate(
    options: FilterOptions, inputs: Inputs | None, model: ir.Model, analysis: Analysis, whole: HeadMaskSession
) -> tuple[Evaluate, str]:
    if callable(options.metric):
        return options.metric, getattr(options.metric, "__name__", "metric")
    if inputs is None:
        raise UsageError("filtering needs data", hint="give validation data, or a function as metric")
    metric = make_metric(options.metric, list(inputs.batches()), model, analysis, whole, options.output)
    return metric, metric.name


class _Search:
    """Ranks candidates and removes them one by one."""

    def __init__(
        self,
        worker: _Worker,
        sites: Sequence[Attention],
        heads: Mapping[str, npt.NDArray[np.bool_]],
        members: Mapping[Unit, Index],
        options: FilterOptions,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.worker, self.sites, self.members, self.options = worker, sites, members, options
        self.candidates = list(members)
        self.shapes = {name: heads[name].shape for name, _ in members}
        self.progress = progress
        self.known: dict[bytes, float] = {}

    def keep(self, removed: Sequence[Unit]) -> dict[str, npt.NDArray[np.bool_]]:
        keep = {name: np.ones(shape, dtype=bool) for name, shape in self.shapes.items()}
        for unit in removed:
            keep[unit[0]].flat[self.members[unit]] = False
        return keep

    def evaluate(self, choices: Sequence[Sequence[Unit]]) -> list[float]:
        """The metric without these units, each set of them on its own, all at a time; nothing is run twice."""
        head_masks = [head_mask_of(self.sites, self.keep(removed)) for removed in choices]
        new = {mask.tobytes(): mask for mask in head_masks if mask.tobytes() not in self.known}
        for key, value in zip(new, self.worker.map(list(new.values()), self.options.jobs), strict=True):
            self.known[key] = value
        if self.progress is not None:
            self.progress(len(self.known) + 1)
        return [self.known[mask.tobytes()] for mask in head_masks]

    def run(self, selection: Selection, name: str) -> Filtered:
        whole = self.worker.map([no_head_masked(self.sites)], self.options.jobs)[0]
        alone = self.evaluate([[unit] for unit in self.candidates])
        order = sorted(range(len(alone)), key=lambda k: (-alone[k], k))
        ranked = tuple((self.candidates[k], alone[k]) for k in order)
        removed: list[Unit] = []
        after = whole
        for unit, _ in ranked:
            value = self.evaluate([[*removed, unit]])[0]
            if value >= self.options.tolerance * whole:
                removed.append(unit)
                after = value
            elif self.options.policy == "stop":
                break
        keep = {**selection.keep, **self.keep(removed)}
        total = sum(int(np.prod(shape)) for shape in self.shapes.values())
        left = {group: mask for group, mask in keep.items() if not mask.all()}
        share = sum(self.members[unit].size for unit in removed) / total
        if name == "perplexity":  # compared by its reciprocal, for higher is better
            ranked = tuple((unit, 1 / value) for unit, value in ranked)
            whole, after = 1 / whole, 1 / after
        return Filtered(Selection(left), ranked, tuple(removed), name, whole, after, len(self.known) + 1, share)


@dataclass(frozen=True, slots=True)
class _Worker:
    """Evaluates head masks on a session; threads share it, other processes get the model to open one of their own."""

    model: ir.Model
    evaluate: Evaluate
    session: ort.InferenceSession
    providers: tuple[str, ...]

    def map(self, head_masks: Sequence[HeadMask], jobs: int | None) -> list[float]:
        """One number a head mask; masks travel in as many parcels as there are workers, each with the model once."""
        joblib = _joblib()
        parts = min(len(head_masks), joblib.effective_n_jobs(jobs))
        if parts == 1:
            return self.many(head_masks)
        parcels = [list(head_masks[k::parts]) for k in range(parts)]
        parallel = joblib.Parallel(n_jobs=jobs, prefer="threads")
        values = [0.0] * len(head_masks)
        for k, part in enumerate(parallel(joblib.delayed(self.many)(parcel) for parcel in parcels)):
            values[k::parts] = part
        return values

    def many(self, head_masks: Sequence[HeadMask]) -> list[float]:
        """One number a head mask, one after the other."""
        return [float(self.evaluate(HeadMaskSession(self.session, head_mask))) for head_mask in head_masks]

    def __reduce__(self) -> tuple[Any, ...]:
        return _Remote, (ir.to_proto(self.model).SerializeToString(), self.evaluate, self.providers)


@dataclass(frozen=True, slots=True)
class _Remote:
    """What a worker is in another process: a call opens a session, and there is one call a process."""

    model: bytes
    evaluate: Evaluate
    providers: tuple[str, ...]

    def many(self, head_masks: Sequence[HeadMask]) -> list[float]:
        """The metric of several head masks; see `_Worker.many`."""
        model = ir.from_proto(onnx.load_model_from_string(self.model))
        with open_session(model, providers=self.providers) as session:
            return [float(self.evaluate(HeadMaskSession(session, head_mask))) for head_mask in head_masks]


def _joblib() -> Any:
    with needs_extra("text", "joblib"):
        return importlib.import_module("joblib")
