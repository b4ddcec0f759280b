"""Hand what a model makes of data to statistics, each value as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.observe.attention_sites import ObservedValue
from prunegraph.observe.cache import Gathered
from prunegraph.observe.run_batches import FIT_DATA, open_data_runner, together_in
from prunegraph.observe.text import Batch
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.runtime.limits import Limits
from prunegraph.runtime.widen import widened, widened_feeds

SampleProgress = Callable[[int], None]
"""Called with the number of samples seen so far."""


class Statistic(Gathered, Protocol):
    """Something gathered from running a model.

    One that says `takes_parts = True` is given the values of a batch in parts where a model runs by blocks, each value
    once; any other is given all of its values at once.
    """

    def observed_values(self) -> Sequence[ObservedValue]:
        """The values that it reads."""
        ...

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Take in one batch; `values` are by their names and must not be kept."""
        ...


def gather_in_one_pass(
    providers: Sequence[str],
    limits: Limits,
    model: ir.Model,
    batches: Iterable[Batch],
    statistics: Sequence[Statistic],
    progress: SampleProgress | None = None,
) -> None:
    """Run batches through a model once and let every statistic see the values that it asks for.

    Args:
        providers: Execution providers of ONNX Runtime.
        limits: What a batch may take.
        model: A normalized model; it is not changed.
        batches: What to run it on.
        statistics: What to gather; they are updated in place.
        progress: Called as batches are done.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """
    observed = list(dict.fromkeys(value for statistic in statistics for value in statistic.observed_values()))
    names = [value.value for value in observed]
    sample_count = 0
    with open_data_runner(with_outputs(widened(model), observed), names, providers, "the model", FIT_DATA) as runner:
        together = runner.together if all(map(_takes_parts, statistics)) else 1
        for some in together_in(batches, together):
            receivers = [_Receiver(batch, statistics) for batch in some]
            feeds = [widened_feeds(batch.feeds) for batch in some]
            for k, part in runner.parts(feeds, [names] * len(some), limits):
                receivers[k].take(part)
                del part
            sample_count += sum(len(batch.samples) for batch in some)
            if progress is not None:
                progress(sample_count)


def _takes_parts(statistic: Statistic) -> bool:
    """Whether a statistic may be given its values in parts, some now and some later."""
    return bool(getattr(statistic, "takes_parts", False))


class _Receiver:
    """Hands the values of one batch to statistics: to each as soon as it has what it needs."""

    def __init__(self, batch: Batch, statistics: Sequence[Statistic]) -> None:
        self.batch = batch
        self.waiting = [(each, [value.value for value in each.observed_values()]) for each in statistics]
        self.values: dict[str, Array] = {}

    def take(self, part: Mapping[str, Array]) -> None:
        self.values |= part
        still_waiting = []
        for statistic, names in self.waiting:
            there = [name for name in names if name in self.values]
            if there == names or (there and _takes_parts(statistic)):
                statistic.update(self.batch, {name: self.values[name] for name in there})
                names = [name for name in names if name not in there]
                if not names:
                    continue
            still_waiting.append((statistic, names))
        self.waiting = still_waiting
        needed = {name for _, names in still_waiting for name in names}
        self.values = {name: array for name, array in self.values.items() if name in needed}
