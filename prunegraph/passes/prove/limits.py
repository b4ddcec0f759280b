"""What a proof on made-up inputs may take: sizes that a file declares are no reason to fill the memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.arrays import Array
from prunegraph.runtime.blocks import bytes_of_weights
from prunegraph.runtime.inputs import InputSpec, bytes_of
from prunegraph.runtime.limits import SECONDS_A_TRIAL, Limits, TooLarge

BYTES_FED = 1 << 29
"""What is fed in all runs, and what comes out; a proof holds several copies of it beside what a run takes."""

BYTES_COMPARED = 1 << 30
"""What comes out of one model together with the values inside of it that are looked at."""

BYTES_OF_WEIGHTS = 1 << 30
"""A model with more weights than that needs what it needs."""


def limits_of(model: ir.Model) -> Limits:
    """What its runs may take: a loop may have no end, and a graph with large weights needs what it needs."""
    nodes = chain(model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values()))
    endless = any(traits_of(node).endless for node in nodes)
    return Limits(memory=bytes_of_weights(model.graph) < BYTES_OF_WEIGHTS, seconds=SECONDS_A_TRIAL if endless else None)


def check_inputs(specs: Sequence[InputSpec], plan: Iterable[Mapping[str, int]], limits: Limits) -> None:
    """Refuse inputs before any of them is made.

    Raises:
        TooLarge: they take more than `BYTES_FED`.
    """
    _check("its inputs alone", sum(bytes_of(specs, sizes) for sizes in plan), BYTES_FED, limits)


def check_outputs(runs: Iterable[Mapping[str, Array]], limits: Limits) -> None:
    """Refuse outputs of which there are several copies later.

    Raises:
        TooLarge: they take more than `BYTES_FED`.
    """
    _check("its outputs", _bytes(runs), BYTES_FED, limits)


def check_compared(runs: Iterable[Mapping[str, Array]], limits: Limits) -> None:
    """Refuse outputs together with inner values, of which there are several copies later.

    Raises:
        TooLarge: they take more than `BYTES_COMPARED`.
    """
    _check("the values that are compared", _bytes(runs), BYTES_COMPARED, limits)


def _bytes(runs: Iterable[Mapping[str, Array]]) -> int:
    return sum(array.nbytes for values in runs for array in values.values())


def _check(what: str, size: int, most: int, limits: Limits) -> None:
    if limits.memory and size > most:
        raise TooLarge(f"{what} take {size / 2**30:,.1f} GiB")
