"""Random inputs for a model, given sizes for its dynamic dims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.errors import UsageError

Array = npt.NDArray[Any]

ID_BOUNDS = (100, 2)
"""Integer inputs are below the first; below the second for models that take only smaller ones (token types)."""

_DTYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(bool)": np.bool_,
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}
_BATCH = re.compile(r"batch|^[bn]$", re.IGNORECASE)
_SEQUENCE = re.compile(r"seq|token|len|time|context|^[stl]$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A graph input.

    Attributes:
        name: Of the graph input.
        dtype: Its element type in numpy.
        shape: A number for a static dim, a name for a dynamic one; a dim without a name is called ``<input>.<axis>``.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


def input_specs(session: ort.InferenceSession) -> tuple[InputSpec, ...]:
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
        shape = (dim if dim or dim == 0 else f"{node.name}.{axis}" for axis, dim in enumerate(node.shape))
        specs.append(InputSpec(node.name, np.dtype(_DTYPES[node.type]), tuple(shape)))
    return tuple(specs)


def resolve_sizes(
    specs: Sequence[InputSpec], *, batch: int, sequence: int, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """A size for every dynamic dim.

    What is named in ``sizes`` wins; then the dim's own name decides (``batch_size``, ``sequence_length``), then its
    place: axis 0 is the batch, axis 1 of an input of rank 2 or 3 the sequence. Sums and products of named dims
    (``past_sequence_length + 1``) are computed.

    Raises:
        UsageError: No size can be told for a dim, a name in ``sizes`` is no dim of the model, or a size is negative.

    >>> resolve_sizes([InputSpec("ids", np.dtype("int64"), ("batch", "s77"))], batch=1, sequence=16)
    {'batch': 1, 's77': 16}
    """
    given = dict(sizes or {})
    places: dict[str, tuple[int, int]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                places.setdefault(dim, (axis, len(spec.shape)))
    known = {*places, *(symbol for dim in places for symbol in _symbols(dim))}
    _check_given(given, known)
    guesses = {"batch": batch, "sequence": sequence}
    resolved: dict[str, int] = {}
    for dim, (axis, rank) in places.items():
        if dim in given:
            resolved[dim] = given[dim]
        elif symbols := _symbols(dim):
            bindings = given | {
                symbol: guesses[role] for symbol in symbols - given.keys() if (role := _role_by_name(symbol))
            }
            value = ir.SymbolicDim(dim).evaluate(bindings)
            if isinstance(value, int):
                resolved[dim] = value
        elif role := _role_by_name(dim) or _role_by_place(axis, rank):
            resolved[dim] = guesses[role]
    missing = sorted(places.keys() - resolved.keys())
    if missing:
        raise UsageError(
            f"cannot tell how long these dynamic dims should be: {', '.join(missing)}",
            hint=f"give each a size by name, for example sizes={{{missing[0]!r}: 224}}",
        )
    return resolved


def random_feeds(
    specs: Sequence[InputSpec], sizes: Mapping[str, int], *, seed: int = 0, id_bound: int = ID_BOUNDS[0]
) -> dict[str, Array]:
    """Values for every input: floats normal, integers in ``[0, id_bound)``, booleans true, and masks one.

    An input is a mask when its name says so: random masks would hide a different part of the model on every run.

    Args:
        specs: The inputs.
        sizes: A size for every dynamic dim, see `resolve_sizes`.
        seed: The same seed gives the same values.
        id_bound: Integers are below this.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for spec in specs:
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
        if spec.dtype.kind == "b" or "mask" in spec.name.lower():
            feeds[spec.name] = np.ones(shape, spec.dtype)
        elif spec.dtype.kind in "iu":
            feeds[spec.name] = rng.integers(0, id_bound, shape).astype(spec.dtype)
        else:
            feeds[spec.name] = np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    return feeds


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
        fits = len(spec.shape) == feed.ndim and all(
            isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, feed.shape, strict=True)
        )
        if not fits or spec.dtype != feed.dtype:
            raise UsageError(
                f"the input {spec.name!r} of {model} is {spec.dtype}{list(spec.shape)}, "
                f"but {first} is timed with {feed.dtype}{list(feed.shape)}",
                hint=hint,
            )


def _check_given(given: Mapping[str, int], known: set[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise UsageError(
            f"the model has no dynamic dim named {', '.join(unknown)}",
            hint=f"its dynamic dims are: {', '.join(sorted(known)) or 'none, every size is static'}",
        )
    if negative := [name for name, size in given.items() if size < 0]:
        raise UsageError(f"the size of {negative[0]!r} is negative", hint="sizes are 0 or more")


def _symbols(dim: str) -> frozenset[str]:
    """The names in an arithmetic expression; none in a plain name."""
    return ir.SymbolicDim(dim).free_symbols() if re.search(r"[-+*/(]", dim) else frozenset()


def _role_by_name(dim: str) -> str | None:
    if _BATCH.search(dim):
        return "batch"
    return "sequence" if _SEQUENCE.search(dim) else None


def _role_by_place(axis: int, rank: int) -> str | None:
    if axis == 0:
        return "batch"
    return "sequence" if axis == 1 and rank in (2, 3) else None
