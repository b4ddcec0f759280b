"""Inputs to run a model with when nobody gives any: values that every op accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A graph input: its name, numpy type, dims (a number, or a name where dynamic) and, for indices, their bound."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str, ...]
    bound: int | None = None


def input_specs(graph: ir.Graph) -> tuple[InputSpec, ...]:
    """The inputs that must be fed: those without a default value.

    Raises:
        ValueError: an input is no tensor of known rank.
    """
    specs = []
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        if value.dtype is None or value.shape is None or not value.name:
            raise ValueError(f"the input {value.name!r} is no tensor of known rank")
        dims = tuple(
            dim if isinstance(dim, int) else (str(dim.value) if dim.value else f"{value.name}.{axis}")
            for axis, dim in enumerate(value.shape)
        )
        specs.append(InputSpec(value.name, np.dtype(value.dtype.numpy()), dims, _index_bound(value)))
    return tuple(specs)


def _index_bound(value: ir.Value) -> int | None:
    """The length of the table that an integer input looks up, None where it looks up none."""
    seen, waiting = set(), [value]
    bounds = []
    while waiting:
        current = waiting.pop()
        for node, index in current.uses():
            traits = traits_of(node)
            lookup = traits.looked_up_by.get(index)
            if lookup is not None and not lookup.tuples:
                data = node.inputs[lookup.table]
                if data is not None and data.shape is not None:
                    dim = data.shape[lookup.axis(node)]
                    bounds += [dim] if isinstance(dim, int) else []
            elif index in traits.carries and node not in seen:
                seen.add(node)
                waiting += node.outputs
    return min(bounds, default=None)


def shape_of(spec: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input under these sizes."""
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.dims)


def constant_feeds(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> Feeds:
    """Ones everywhere: what shapes are learnt with."""
    return {spec.name: np.ones(shape_of(spec, sizes), spec.dtype) for spec in specs}


def random_feeds(specs: Sequence[InputSpec], sizes: Mapping[str, int], seed: int) -> Feeds:
    """Normal floats, indices within their table, other integers a right-padded 0/1 mask."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for spec in specs:
        shape = shape_of(spec, sizes)
        if spec.dtype.kind in "iu" and spec.bound is not None:
            feeds[spec.name] = rng.integers(0, spec.bound, shape).astype(spec.dtype)
        elif spec.dtype.kind in "iub":
            feeds[spec.name] = _right_padded(shape).astype(spec.dtype)
        else:
            feeds[spec.name] = np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    return feeds


def _right_padded(shape: tuple[int, ...]) -> Array:
    """Ones, but for the tail of the last row of a batch."""
    mask = np.ones(shape)
    if len(shape) == 2 and shape[0] > 1 and shape[1] > 3:
        mask[-1, -(shape[1] // 4) :] = 0
    return mask
