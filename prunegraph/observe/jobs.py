"""Gather statistics in several processes at a time, or on the machines of a cluster: each sees a part of the data.

The parts are merged in the order of the data.  `joblib` runs them, so that `joblib.parallel_config` says where: in
processes of this machine, or by a Dask or Ray cluster whose machines share the folder for temporary files.
"""

from __future__ import annotations

import copy
import importlib
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_weight
from prunegraph.atomic_write import temporary_folder
from prunegraph.extras import needs_extra
from prunegraph.observe.text import Batch
from prunegraph.runtime.blocks import bytes_of_weights
from prunegraph.runtime.session import is_heavy

BATCHES = 32
"""So many batches make a part, or fewer where there are not enough of them for all."""

_NAME, _WEIGHTS = "model.onnx", "weights"

Gather = Callable[[ir.Model, Sequence[Batch], Sequence[Any]], None]


def can_be_sent(statistic: Any) -> bool:
    """Whether another process can take a statistic; one with a parser of texts of its own it may not."""
    try:
        pickle.dumps(statistic)
    except (TypeError, AttributeError, pickle.PicklingError):
        return False
    return True


def gather_in_jobs(
    model: ir.Model,
    batches: Iterable[Batch],
    statistics: Sequence[Any],
    gather: Gather,
    jobs: int | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Gather parts of the data apart, and merge them.

    Args:
        model: What runs; it is written to a temporary folder, from which every process reads it.
        batches: The data.
        statistics: Those that have gathered nothing yet; they are updated in place.
        gather: What gathers one part; a function that can be pickled.
        jobs: How many at a time, all processors if -1; None leaves it to `joblib.parallel_config`.
        progress: Called with the number of samples seen after every part.

    Raises:
        MissingExtra: joblib is not installed.
        OutputError: there is no room for the model in the folder for temporary files.
        UsageError: a statistic cannot be merged.
    """
    with needs_extra("text", "joblib"):
        joblib = importlib.import_module("joblib")
    blank = copy.deepcopy(list(statistics))
    with temporary_folder(bytes_of_weights(model.graph)) as folder:
        ir.save(model, folder / _NAME, external_data=_WEIGHTS)
        parts = _parts(batches, joblib.effective_n_jobs(jobs))
        tasks = (joblib.delayed(_gathered)(folder, gather, part, before, blank) for part, before in parts)
        for samples, others in joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks):
            for statistic, other in zip(statistics, others, strict=True):
                statistic.merge(other)
            if progress is not None:
                progress(samples)


def _parts(batches: Iterable[Batch], jobs: int) -> Iterator[tuple[list[Batch], int]]:
    """Neighbouring batches, and how many samples lie before them; few batches are shared out among all jobs."""
    remaining = iter(batches)
    first = list(islice(remaining, jobs * BATCHES))
    size = min(BATCHES, max(1, math.ceil(len(first) / jobs)))
    all_of_them, before = chain(first, remaining), 0
    while part := list(islice(all_of_them, size)):
        yield part, before
        before += _samples(part)


def _samples(batches: Iterable[Batch]) -> int:
    return sum(len(batch.samples) for batch in batches)


def _gathered(
    folder: Path, gather: Gather, batches: Sequence[Batch], before: int, blank: Sequence[Any]
) -> tuple[int, list[Any]]:
    """What one part shows, with the number of samples up to its end."""
    statistics = copy.deepcopy(list(blank))
    for statistic in statistics:
        if hasattr(statistic, "before"):
            statistic.before = before
    gather(_loaded(folder / _NAME), batches, statistics)
    return before + _samples(batches), statistics


def _loaded(path: Path) -> ir.Model:
    """A model whose large weights stay in their file, and whatever else ONNX Runtime reads in the message."""
    model = ir.load(path)
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and not (graph is model.graph and is_heavy(tensor)):
                value.const_value = ir.Tensor(np.array(read_weight(tensor)), dtype=tensor.dtype, name=name)
    return model
