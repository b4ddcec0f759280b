"""Inputs to run a model with when nobody gives any: values that every op accepts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.errors import ModelError

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
        ModelError: an input is no tensor, or nobody says how many axes it has.
    """
    return tuple(_input_spec(value) for value in graph.inputs if value.name not in graph.initializers)


def _input_spec(value: ir.Value) -> InputSpec:
    cut = "cut the model behind it (onnx.utils.extract_model) and prune the rest"
    if isinstance(value.type, ir.SequenceType | ir.OptionalType):
        what = "a sequence" if isinstance(value.type, ir.SequenceType) else "an optional value"
        raise ModelError(f"the input {value.name!r} is {what}, no tensor: it cannot be made up", hint=cut)
    if value.dtype is None or not value.name:
        raise ModelError(f"the input {value.name!r} is no tensor of a known type", hint=cut)
    if value.shape is None:
        hint = "declare its dims, by a name for each that varies (onnx.tools.update_model_dims)"
        raise ModelError(f"nobody says how many axes the input {value.name!r} has", hint=hint)
    dims = tuple(_dim(value.name, axis, dim) for axis, dim in enumerate(value.shape))
    return InputSpec(value.name, np.dtype(value.dtype.numpy()), dims, _index_bound(value))


def _dim(name: str, axis: int, dim: int | ir.SymbolicDim) -> int | str:
    """A length, or a name; -1 is how some exporters write that a dim varies."""
    if isinstance(dim, int):
        return dim if dim >= 0 else f"{name}.{axis}"
    return str(dim.value) if dim.value else f"{name}.{axis}"


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
    return {spec.name: _ones(shape_of(spec, sizes), spec.dtype) for spec in specs}


def _ones(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.full(shape, "1", dtype) if dtype.kind == "O" else np.ones(shape, dtype)


def bytes_of(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> int:
    """How much memory the inputs take under these sizes."""
    return sum(math.prod(shape_of(spec, sizes)) * spec.dtype.itemsize for spec in specs)


def random_feeds(specs: Sequence[InputSpec], sizes: Mapping[str, int], seed: int) -> Feeds:
    """Normal floats, indices within their table, other integers a right-padded 0/1 mask."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for spec in specs:
        shape = shape_of(spec, sizes)
        if spec.dtype.kind == "O":
            feeds[spec.name] = _ones(shape, spec.dtype)
        elif spec.dtype.kind in "iu" and spec.bound is not None:
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
