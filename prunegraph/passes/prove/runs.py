"""Runs of one model for a comparison: its outputs, values inside of it, and what rounding does to both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import late, read_weight
from prunegraph.arrays import Array
from prunegraph.passes.prove.compare import Vector, slice_noise
from prunegraph.passes.prove.limits import check_compared
from prunegraph.runtime.blocks import Values as Values
from prunegraph.runtime.blocks import open_runner
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import UNLIMITED, Limits
from prunegraph.runtime.session import SessionSettings
from prunegraph.runtime.widen import widened_feeds

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
    first = list(dict.fromkeys([*outputs, *inner]))
    names = [first if k == 0 else outputs for k in range(len(feeds))]
    runs: list[Values] = []
    settings = SessionSettings(optimize=optimize, prepack=False, trial=limits.memory)
    with open_runner(model, first, settings) as runner:
        for values in runner.run(map(widened_feeds, feeds), names, limits):
            runs.append(values)
            check_compared(runs, limits)
    return runs


def jittered(model: ir.Model, seed: int) -> ir.Model:
    """A copy with the last bits of its weights changed; whole numbers, which may be masks and exponents, stay."""
    twin = model.clone()
    for graph in twin.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                value.const_value = _jittered(value.const_value, seed, name)
    return twin


def _jittered(tensor: ir.TensorProtocol, seed: int, name: str) -> ir.TensorProtocol:
    return late(lambda: _jitter(read_weight(tensor), seed), tensor.dtype, tensor.shape.numpy(), name)


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
