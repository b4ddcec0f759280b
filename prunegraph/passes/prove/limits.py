"""What a proof on made-up inputs may take: sizes that a file declares are no reason to fill the memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.runtime.inputs import InputSpec, bytes_of
from prunegraph.runtime.limits import BYTES_A_TRIAL, SECONDS_A_TRIAL, Limits, TooLarge

BYTES_COMPARED = BYTES_A_TRIAL // 4
"""What is fed and what is compared; a proof holds several copies of it."""


def limits_of(model: ir.Model) -> Limits:
    """What its runs may take: a graph with a Loop may have no end, and one with large weights needs what it needs."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    weights = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    nodes = chain(model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values()))
    loops = any(node.op_type == "Loop" for node in nodes)
    return Limits(memory=weights < BYTES_COMPARED, seconds=SECONDS_A_TRIAL if loops else None)


def check_bytes(arrays: Iterable[Mapping[str, Array]], limits: Limits, what: str) -> None:
    """Refuse arrays of which there are several copies later.

    Raises:
        TooLarge: they take more than `BYTES_COMPARED`.
    """
    size = sum(array.nbytes for values in arrays for array in values.values())
    if limits.memory and size > BYTES_COMPARED:
        raise TooLarge(f"{what} take {size / 2**30:.1f} GiB")


def check_inputs(specs: Sequence[InputSpec], sizes: Mapping[str, int], limits: Limits) -> None:
    """Refuse inputs before any of them is made.

    Raises:
        TooLarge: they take more than `BYTES_COMPARED`.
    """
    size = bytes_of(specs, sizes)
    if limits.memory and size > BYTES_COMPARED:
        raise TooLarge(f"its inputs alone take {size / 2**30:,.1f} GiB")
