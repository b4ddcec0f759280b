"""Weights that are equal byte for byte: exporters that fold a Transpose per use write a tied weight several times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_samples, read_weight

_RUNS, _RUN = 4, 16
"""How many runs of neighbours are compared first, and how long each is: scattered ones would read in the whole file."""

_SMALL = _RUNS * _RUN


def equal_weights(graph: ir.Graph) -> dict[str, str]:
    """By name of an initializer with two axes or more the first one that holds the same numbers.

    Shapes and a few samples are compared first, so that weights which differ are not read through.
    """
    alike: dict[tuple[object, ...], list[ir.Value]] = defaultdict(list)
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and len(tensor.shape) > 1 and tensor.size > _SMALL and not value.is_graph_input():
            alike[tensor.dtype, *tensor.shape.numpy()].append(value)
    return {name: first for family in alike.values() if len(family) > 1 for name, first in _equal_pairs(family)}


def _equal_pairs(family: list[ir.Value]) -> Iterator[tuple[str, str]]:
    first: dict[bytes, list[ir.Value]] = defaultdict(list)
    for value in family:
        assert value.const_value is not None
        samples = read_samples(value.const_value, _RUNS, _RUN)
        if np.all(samples == samples[0, 0]):
            continue  # freshly initialized rather than tied
        known = first[samples.tobytes()]
        twin = next((other for other in known if np.array_equal(_array(other), _array(value))), None)
        if twin is None:
            known.append(value)
        elif not value.is_graph_output():
            yield value.name or "", twin.name or ""


def _array(value: ir.Value) -> npt.NDArray[Any]:
    assert value.const_value is not None
    return read_weight(value.const_value)
