"""Runs of one model for a comparison: its outputs, values inside of it, and what rounding does to both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.passes.prove.compare import Vector, slice_noise
from prunegraph.passes.prove.limits import check_compared
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import UNLIMITED, Limits
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened_feeds

Values = dict[str, Array]
"""What a run made, by name."""

Noise = Mapping[str, list[Vector] | None]

JITTER = 2.0**-21
"""By how much weights and inputs are changed to see what rounding does: eight units in the last place of a float32."""

_HUGE = 1e30
"""Numbers that stand for infinity overflow when they grow."""


def run_all(
    model: ir.Model,
    feeds: Sequence[Feeds],
    outputs: Sequence[str],
    inner: Sequence[str] = (),
    *,
    optimize: bool = True,
    limits: Limits = UNLIMITED,
) -> list[Values]:
    """What a model makes of every input; at the first one values inside of it, too.

    Raises:
        CannotRun: ONNX Runtime does not run it, or not within the limits.
    """
    runs: list[Values] = []
    opened = open_session(model, optimize=optimize, prepack=False, trial=limits.memory)
    with _putting_out(model, inner), opened as session:
        for k, feed in enumerate(feeds):
            names = list(dict.fromkeys([*outputs, *(inner if k == 0 else ())]))
            runs.append(dict(zip(names, run(session, widened_feeds(feed), names, limits=limits), strict=True)))
            check_compared(runs, limits)
    return runs


@contextlib.contextmanager
def _putting_out(model: ir.Model, inner: Sequence[str]) -> Iterator[None]:
    """Inner values are outputs of a model meanwhile: a copy of the graph would take as long as a run."""
    graph_outputs = model.graph.outputs
    there = {value.name for value in graph_outputs}
    by_name = {value.name: value for node in model.graph for value in node.outputs} if inner else {}
    added = [by_name[name] for name in dict.fromkeys(inner) if name not in there]
    graph_outputs.extend(added)
    try:
        yield
    finally:
        for _ in added:
            graph_outputs.pop()


def jittered(model: ir.Model, seed: int) -> ir.Model:
    """A copy with the last bits of its weights changed; whole numbers, which may be masks and exponents, stay."""
    twin = model.clone()
    for graph in twin.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                value.const_value = ir.tensor(_jitter(value.const_value.numpy(), seed), name=name)
    return twin


def jittered_feeds(feeds: Sequence[Feeds], seed: int) -> list[Feeds]:
    """Inputs with their last bits changed."""
    return [
        {
            name: _jitter(array, seed) if array.dtype.kind == "f" else array
            for name, array in widened_feeds(feed).items()
        }
        for feed in feeds
    ]


def _jitter(array: Array, seed: int) -> Array:
    factors = np.random.default_rng(seed).uniform(-JITTER, JITTER, 4099).astype(array.dtype) + 1  # a prime: no period
    with np.errstate(invalid="ignore", over="ignore"):
        fixed = (array == np.rint(array)) | ~(np.abs(array) < _HUGE)
        return np.where(fixed, array, array * np.resize(factors, array.shape))


def noise_of(values: Sequence[Values], again: Sequence[Values]) -> list[Noise]:
    """What rounding does to every value of every run."""
    return [
        {name: slice_noise(array, other[name]) for name, array in here.items() if name in other}
        for here, other in zip(values, again, strict=True)
    ]
