"""Which constants of a model are weights to train."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from prunegraph.export.to_torch.dtypes import is_float


def trained(model: ir.Model) -> set[ir.Value]:
    """The initializers that become parameters."""
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    return {
        value
        for value in values
        if is_float(value.dtype) and value.const_value is not None and value.const_value.size > 1
    }


def twins(values: Collection[ir.Value]) -> dict[ir.Value, ir.Value]:
    """Every weight with the first one that holds the same."""
    return {value: value for value in values}
