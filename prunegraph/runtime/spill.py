"""Keep arrays on the disk where they take too much memory together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunegraph.arrays import Array

BYTES_IN_MEMORY = 1 << 27
"""What crosses between blocks, and what was asked for inside of them, lies on the disk beyond so many bytes."""

LARGE = 1 << 18
"""What is smaller stays in memory in any case."""


def spill(runs: Sequence[dict[str, Array | ir.TensorProtocol]], folder: Path, label: str) -> None:
    """Write arrays to the disk beyond `BYTES_IN_MEMORY`, and let them be read from there.

    Args:
        runs: Arrays by name, replaced in place; one that stands there several times is written once.
        folder: Where they are written.
        label: What their files are called, none of which was called so before.
    """
    on_disk: dict[int, Array] = {}
    total = 0
    for values in runs:
        for name, array in values.items():
            if not isinstance(array, np.ndarray) or isinstance(array, np.memmap):
                continue
            if id(array) in on_disk:
                values[name] = on_disk[id(array)]
                continue
            total += array.nbytes
            if total > BYTES_IN_MEMORY and array.nbytes >= LARGE and array.dtype != object:
                values[name] = on_disk[id(array)] = mapped(array, folder / f"{label}.{len(on_disk)}.npy")


def mapped(array: Array, path: Path) -> Array:
    """An array that lies in a file, which goes with it; itself where the disk is full."""
    try:
        np.save(path, array)
        from_disk: Array = np.load(path, mmap_mode="r")
    except OSError:
        return array
    with contextlib.suppress(OSError):  # Windows removes it with the folder
        path.unlink()
    return from_disk
