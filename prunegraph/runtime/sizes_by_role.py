"""Sizes for dynamic dims from a batch and a sequence that the caller names: what a model is timed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunegraph.errors import UsageError
from prunegraph.runtime.dim_expressions import symbols_in, value_of
from prunegraph.runtime.inputs import InputSpec
from prunegraph.runtime.roles import role_by_name, role_by_place


def resolve_sizes(
    specs: Sequence[InputSpec], *, batch: int, sequence: int, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """A size for every dynamic dim.

    What is named in ``sizes`` wins; then the dim's own name decides (``batch_size``, ``sequence_length``), then its
    place: axis 0 is the batch, axis 1 of an input of rank 2 or 3 the sequence. Sums and products of named dims
    (``past_sequence_length + 1``) are computed.

    Raises:
        UsageError: No size can be told for a dim, a name in ``sizes`` is no dim of the model, or a size is negative.

    >>> import numpy as np
    >>> resolve_sizes([InputSpec("ids", np.dtype("int64"), ("batch", "s77"))], batch=1, sequence=16)
    {'batch': 1, 's77': 16}
    """
    given = dict(sizes or {})
    places: dict[str, tuple[int, int]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str):
                places.setdefault(dim, (axis, len(spec.dims)))
    known = {*places, *(symbol for dim in places for symbol in symbols_in(dim))}
    _check_given(given, known)
    guesses = {"batch": batch, "sequence": sequence}
    resolved: dict[str, int] = {}
    for dim, (axis, rank) in places.items():
        if dim in given:
            resolved[dim] = given[dim]
        elif symbols := symbols_in(dim):
            bindings = given | {
                symbol: guesses[role] for symbol in symbols - given.keys() if (role := role_by_name(symbol))
            }
            value = value_of(dim, bindings)
            if value is not None:
                resolved[dim] = value
        elif role := role_by_name(dim) or role_by_place(axis, rank):
            resolved[dim] = guesses[role]
    missing = sorted(places.keys() - resolved.keys())
    if missing:
        raise UsageError(
            f"cannot tell how long these dynamic dims should be: {', '.join(missing)}",
            hint=f"give each a size by name, for example sizes={{{missing[0]!r}: 224}}",
        )
    return resolved


def _check_given(given: Mapping[str, int], known: set[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise UsageError(
            f"the model has no dynamic dim named {', '.join(unknown)}",
            hint=f"its dynamic dims are: {', '.join(sorted(known)) or 'none, every size is static'}",
        )
    if negative := [name for name, size in given.items() if size < 0]:
        raise UsageError(f"the size of {negative[0]!r} is negative", hint="sizes are 0 or more")
