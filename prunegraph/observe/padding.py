"""Padding masks: which positions of an activation count, and which sample each of them belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Mask
from prunegraph.observe.text import Batch


def real(lead: tuple[int, ...], batch: Batch) -> Mask:
    """Which positions are no padding, and in no row that only fills up a fixed batch.

    Args:
        lead: The lengths of all axes of the activation but that of the channels.
        batch: What the model was run on. Where an axis is as long as its texts, the last such one holds the tokens.
    """
    count, mask = len(batch.samples), batch.mask
    if mask is None or not lead:
        return np.asarray(owner(lead, batch) < count)
    chosen = np.ones(lead, dtype=bool)
    rows, length = next(iter(batch.feeds.values())).shape[:2]
    full = np.zeros((rows, length), dtype=bool)
    full[:count] = mask
    if lead == (rows * length,):
        return full.reshape(-1)
    if lead[0] != rows:
        return chosen
    tokens = [k for k in range(1, len(lead)) if lead[k] == length]
    if not tokens:
        chosen[count:] = False
        return chosen
    shape = [n if k in (0, tokens[-1]) else 1 for k, n in enumerate(lead)]
    return chosen & full.reshape(shape)


def owner(lead: tuple[int, ...], batch: Batch) -> npt.NDArray[np.int64]:
    """The number of the sample that every position belongs to; 0 for all where the first axis is no batch."""
    rows = next((array.shape[0] for array in batch.feeds.values() if np.ndim(array)), 1)
    if not lead or lead[0] % rows:
        return np.zeros(lead, dtype=np.int64)
    first = np.arange(lead[0], dtype=np.int64) // (lead[0] // rows)
    return np.broadcast_to(first.reshape(-1, *[1] * (len(lead) - 1)), lead)


def rows_of(array: npt.NDArray[Any], axis: int, batch: Batch) -> npt.NDArray[Any]:
    """`[positions, channels]` of an activation, only those that count."""
    moved = np.moveaxis(array, axis, -1)
    return np.asarray(moved[real(moved.shape[:-1], batch)])
