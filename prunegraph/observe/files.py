"""Read data files safely: text in UTF-8 and archives of arrays, with limits, so that none is a trap."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np
import numpy.typing as npt

from prunegraph.errors import UsageError

SMALL = 64 << 20
"""Bytes of arrays that any archive may hold."""

LARGEST_RATIO = 200
"""How many times its own size an archive may hold beyond that; masks and padded ids stay far below."""

_NPZ_HINT = "write it with numpy.savez: an array of numbers for every input, named as the input"


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A text file in UTF-8; the mark that Excel puts in front is left out.

    Raises:
        UsageError: it is not UTF-8, or cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name} is no text in UTF-8: {error.reason}", hint="save it as UTF-8") from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; False too where there can be none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `.npz` file.

    What the file says of sizes is compared with what is there before anything is read into memory.

    Raises:
        UsageError: it is none, is damaged, holds something else than numbers, or far more than a file of its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(path, archive)
            return {info.filename.removesuffix(".npy"): _array(path, archive, info) for info in archive.infolist()}
    except (UsageError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path.name} is no whole .npz file: {error}", hint=_NPZ_HINT) from error
    except Exception as error:  # zipfile, zlib and numpy raise whatever they meet in a damaged file
        raise UsageError(f"{path.name} cannot be read: {error}", hint=_NPZ_HINT) from error


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    total, size = sum(info.file_size for info in archive.infolist()), os.path.getsize(path)
    if total > SMALL and total > LARGEST_RATIO * size:
        raise UsageError(
            f"{path.name} has {size:,} bytes and unpacks to {total:,}",
            hint=f"refused, more than {LARGEST_RATIO} times its size; write it with numpy.savez, not savez_compressed",
        )


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(info) as file:
        shape, dtype, header = _header(file)
    name = info.filename.removesuffix(".npy")
    if dtype.hasobject or dtype.kind not in "biufc":
        what = "pickled objects" if dtype.hasobject else f"values of type {dtype}"
        raise UsageError(f"{path.name}: the array {name!r} holds {what}, not numbers", hint=_NPZ_HINT)
    need = dtype.itemsize * math.prod(shape)
    if need != info.file_size - header:
        raise UsageError(
            f"{path.name}: the array {name!r} is stated to have {need:,} bytes and has {info.file_size - header:,}",
            hint="the file is damaged; write it again",
        )
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and the length of the header itself."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype, file.tell()
