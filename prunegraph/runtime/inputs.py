"""The inputs of a model: what they are called, their types and their dims, read from a graph or from a session."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.analysis.ops import traits_of
from prunegraph.arrays import Array
from prunegraph.errors import ModelError, UsageError

_DTYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(bool)": np.bool_,
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


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
    visited, waiting = set(), [value]
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
            elif index in traits.carries and node not in visited:
                visited.add(node)
                waiting += node.outputs
    return min(bounds, default=None)


def with_sizes(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> tuple[InputSpec, ...]:
    """The inputs with these dims fixed."""
    return tuple(
        replace(spec, dims=tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.dims))
        for spec in specs
    )


def shape_of(spec: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input under these sizes."""
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.dims)


def bytes_of(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> int:
    """How much memory the inputs take under these sizes."""
    return sum(math.prod(shape_of(spec, sizes)) * spec.dtype.itemsize for spec in specs)


def session_inputs(session: ort.InferenceSession) -> tuple[InputSpec, ...]:
    """The inputs that a session must be given.

    Raises:
        UsageError: One is no tensor of numbers or booleans.
    """
    specs = []
    for node in session.get_inputs():
        if node.type not in _DTYPES:
            raise UsageError(
                f"cannot make up values for the input {node.name!r} of type {node.type}",
                hint="cut the model behind that input (onnx.utils.extract_model) and time the rest",
            )
        dims = (dim if dim or dim == 0 else f"{node.name}.{axis}" for axis, dim in enumerate(node.shape))
        specs.append(InputSpec(node.name, np.dtype(_DTYPES[node.type]), tuple(dims)))
    return tuple(specs)


def check_same_inputs(specs: Sequence[InputSpec], feeds: Mapping[str, Array], model: str, first: str) -> None:
    """Check that a model can be given the feeds made for the first one.

    Raises:
        UsageError: It has other inputs, types or static sizes.
    """
    hint = "compare versions of one model; for a static size, give the dynamic dims of the first model that size"
    if (theirs := {spec.name for spec in specs}) != feeds.keys():
        different = ", ".join(sorted(theirs ^ feeds.keys()))
        raise UsageError(f"{model} has other inputs than {first}: {different}", hint=hint)
    for spec in specs:
        feed = feeds[spec.name]
        fits = len(spec.dims) == feed.ndim and all(
            isinstance(dim, str) or dim == size for dim, size in zip(spec.dims, feed.shape, strict=True)
        )
        if not fits or spec.dtype != feed.dtype:
            raise UsageError(
                f"the input {spec.name!r} of {model} is {spec.dtype}{list(spec.dims)}, "
                f"but {first} is timed with {feed.dtype}{list(feed.shape)}",
                hint=hint,
            )
