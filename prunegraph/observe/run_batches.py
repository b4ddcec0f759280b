"""Run batches of data through a model, whole or block by block, widened to float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.errors import PruneGraphError
from prunegraph.observe.text import Batch
from prunegraph.runtime.blocks import Runner, open_runner
from prunegraph.runtime.limits import UNLIMITED, CannotRun, Limits
from prunegraph.runtime.providers import CPU
from prunegraph.runtime.session import SessionSettings
from prunegraph.runtime.widen import widened_feeds

BYTES_RUN_WHOLE = 1 << 29
"""A model with no more bytes of weights runs whole: it is faster where there are many batches."""

FIT_DATA = "check the data, shorten the texts (max_length) or give inputs that the model accepts"
"""What to do where a model does not run on data."""


def run_batches(
    model: ir.Model,
    batches: Iterable[Batch],
    outputs: Sequence[str],
    providers: Sequence[str] = CPU,
    *,
    limits: Limits = UNLIMITED,
    title: str = "the model",
    hint: str = FIT_DATA,
) -> Iterator[tuple[Batch, list[Array]]]:
    """Run batches through a model, widened to float32: every batch with the values that were asked for.

    Args:
        model: A widened model.
        batches: What to run it on.
        outputs: Names of its outputs; without any it is not run.
        providers: Execution providers of ONNX Runtime.
        limits: What a batch may take.
        title: What an error calls the model.
        hint: What to do about an error.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """
    with open_data_runner(model, outputs, providers, title, hint) as runner:
        for some in together_in(batches, runner.together):
            runs = runner.run([widened_feeds(batch.feeds) for batch in some], [outputs] * len(some), limits)
            for batch, values in zip(some, runs, strict=True):
                yield batch, [values[name] for name in outputs]


@contextlib.contextmanager
def open_data_runner(
    model: ir.Model, outputs: Sequence[str], providers: Sequence[str], title: str, hint: str
) -> Iterator[Runner]:
    """A way to run a model on data; the arguments and the error are those of `run_batches`."""
    try:
        with open_runner(model, outputs, SessionSettings(providers=providers), whole_up_to=BYTES_RUN_WHOLE) as runner:
            yield runner
    except CannotRun as error:
        raise PruneGraphError(f"ONNX Runtime does not run {title} on the data: {error}", hint=hint) from error


def together_in(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """So many batches at a time."""
    remaining = iter(batches)
    while some := list(islice(remaining, size)):
        yield some
