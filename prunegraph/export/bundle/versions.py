"""Versions of a model that a latency table is measured with on a device, with weights that take no room in a zip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.read_weight import read_weight
from prunegraph.bench.device_table import Cut

PERIOD = 1021
"""Numbers after which a pattern repeats: within what a zip looks back over, and a prime, so that rows differ."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What a latency table is measured with.

    Attributes:
        model: The fingerprint of the whole model.
        groups: By group id how many units it has.
        models: Yields every version with its model, one at a time.
    """

    model: str
    groups: Mapping[str, int]
    models: Callable[[], Iterator[tuple[Cut, ir.Model]]]


def with_patterns(model: ir.Model) -> ir.Model:
    """The model with its large weights repeating their first numbers: as fast, since time hangs on shapes alone.

    It is changed in place.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.size <= PERIOD or not tensor.dtype.is_floating_point():
            continue
        weight = read_weight(tensor)
        repeated = np.resize(np.ravel(weight)[:PERIOD], weight.shape)
        value.const_value = ir.Tensor(repeated, dtype=tensor.dtype, name=tensor.name)
    return model
