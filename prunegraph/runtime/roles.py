"""What the length of a dynamic dim of an input stands for: the batch, a sequence, the side of an image, a cache.

Its name decides where it says so (`batch_size`, `past_sequence_length`), else its place.
"""

from __future__ import annotations

import re
from typing import Literal

from prunegraph.runtime.inputs import InputSpec

Role = Literal["batch", "row", "mask", "past", "image"]

_BATCH = re.compile(r"batch|^[bn]$", re.IGNORECASE)
_CACHE = re.compile(r"past|cache", re.IGNORECASE)
_SEQUENCE = re.compile(r"seq|token|len|time|context|^[stl]$", re.IGNORECASE)


def role_by_name(dim: str) -> Literal["batch", "sequence"] | None:
    """What the name of a dim says, None where it says nothing.

    >>> role_by_name("batch_size"), role_by_name("past_sequence_length"), role_by_name("height")
    ('batch', 'sequence', None)
    """
    if _BATCH.search(dim):
        return "batch"
    return "sequence" if _SEQUENCE.search(dim) else None


def role_by_place(axis: int, rank: int) -> Literal["batch", "sequence"] | None:
    """What its place says where its name says nothing: axis 0 is the batch, axis 1 of rank 2 or 3 a sequence."""
    if axis == 0:
        return "batch"
    return "sequence" if axis == 1 and rank in (2, 3) else None


def role_of(spec: InputSpec, axis: int) -> Role:
    """What the size of a dim depends on when a model is tried: every dim has a role.

    `row` are the positions of a sequence, `past` those of a cache, `mask` the two together, `image` a side of one.
    """
    rank, dim = len(spec.dims), spec.dims[axis]
    named = role_by_name(dim) if isinstance(dim, str) else None
    if axis == 0:
        return "row" if named == "sequence" and rank > 1 and _batch_is_elsewhere(spec) else "batch"
    if named == "batch" or (named is None and _is_beside_layers(spec, axis)):
        return "batch"
    if rank == 4 and axis >= 2:
        both = isinstance(spec.dims[2], str) and isinstance(spec.dims[3], str)
        return "image" if both and not _is_cache(spec) else "past" if axis == 2 else "row"
    if rank == 2 and spec.dtype.kind in "iub" and spec.bound is None:
        return "mask"
    return "row"


def _is_beside_layers(spec: InputSpec, axis: int) -> bool:
    """Whether a dim stands where the states of recurrent layers have the batch: `[layers, batch, units]`."""
    layers = spec.dims[0]
    return axis == 1 and len(spec.dims) == 3 and isinstance(layers, int) and layers > 1


def _is_cache(spec: InputSpec) -> bool:
    """Whether an input of four axes holds past keys or values, as its name or that of its positions says."""
    positions = spec.dims[2]
    names = (spec.name, positions) if isinstance(positions, str) and "." not in positions else (spec.name,)
    return any(_CACHE.search(name) for name in names) or (len(names) > 1 and role_by_name(names[1]) == "sequence")


def _batch_is_elsewhere(spec: InputSpec) -> bool:
    """Whether an axis that is not the first one is called a batch: `[sequence, batch, features]`."""
    return any(isinstance(dim, str) and role_by_name(dim) == "batch" for dim in spec.dims[1:])
