"""Random inputs for any model, such that every op accepts their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegraph.arrays import Array
from prunegraph.errors import ModelError
from prunegraph.runtime.inputs import InputSpec as InputSpec  # found here under the former path for one release
from prunegraph.runtime.inputs import bytes_of
from prunegraph.runtime.inputs import input_specs as input_specs
from prunegraph.runtime.inputs import shape_of as shape_of
from prunegraph.runtime.limits import BYTES_OF_INPUTS, CannotRun

Feeds = dict[str, Array]

ID_BOUNDS = (100, 2)
"""Indices into tables of unknown length are below the first; below the second where tables are short (token types)."""


class InputsTooLarge(CannotRun, ModelError):
    """Inputs that would not fit into memory: a run that is not possible, and where it was asked for the caller's."""


def check_size(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> None:
    """Refuse inputs before any of them is made.

    Raises:
        InputsTooLarge: they would not fit into memory.
    """
    size = bytes_of(specs, sizes)
    if size > BYTES_OF_INPUTS:
        hint = "give smaller sizes to its dynamic dims (--size NAME=N, --batch), or export it with smaller ones"
        raise InputsTooLarge(f"its inputs alone take {size / 2**30:,.0f} GiB", hint=hint)


def constant_feeds(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> Feeds:
    """Ones everywhere: what shapes are learnt with.

    Raises:
        CannotRun: they would not fit into memory.
    """
    check_size(specs, sizes)
    return {spec.name: _ones(shape_of(spec, sizes), spec.dtype) for spec in specs}


def _ones(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.full(shape, "1", dtype) if dtype.kind == "O" else np.ones(shape, dtype)


def random_feeds(
    specs: Sequence[InputSpec],
    sizes: Mapping[str, int],
    seed: int = 0,
    *,
    id_bound: int | None = None,
    whole_masks: bool = False,
) -> Feeds:
    """Normal floats, indices within their table, other integers and booleans a mask of ones and zeros.

    Args:
        specs: The inputs.
        sizes: A size for every dynamic dim.
        seed: The same seed gives the same values.
        id_bound: Integers that look up nothing known are indices too, below this, unless their name says mask.
        whole_masks: Masks hide nothing, and what is called a mask is one; else the last row of a batch is padded on the
            right.

    Raises:
        CannotRun: they would not fit into memory.
    """
    check_size(specs, sizes)
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for spec in specs:
        shape = shape_of(spec, sizes)
        bound = id_bound if spec.bound is None else spec.bound
        named = whole_masks and "mask" in spec.name.lower()
        if spec.dtype.kind == "O":
            feeds[spec.name] = _ones(shape, spec.dtype)
        elif named or spec.dtype.kind == "b" or (spec.dtype.kind in "iu" and bound is None):
            mask = np.ones(shape) if whole_masks else _right_padded(shape)
            feeds[spec.name] = mask.astype(spec.dtype)
        elif spec.dtype.kind in "iu":
            feeds[spec.name] = rng.integers(0, bound, shape).astype(spec.dtype)
        else:
            feeds[spec.name] = np.asarray(rng.standard_normal(shape)).astype(spec.dtype)
    return feeds


def _right_padded(shape: tuple[int, ...]) -> Array:
    """Ones, but for the tail of the last row of a batch."""
    mask = np.ones(shape)
    if len(shape) == 2 and shape[0] > 1 and shape[1] > 3:
        mask[-1, -(shape[1] // 4) :] = 0
    return mask
