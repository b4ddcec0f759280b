"""Cache of gathered statistics: a folder of results by the model, the data and all else that they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.installed import installed_version
from prunegraph.observe.fingerprint import fingerprint

logger = logging.getLogger(__name__)


_FORMAT = 1
"""Raised where the layout of some state changes."""

_CHECKSUM = "checksum"
_ASIDE = ".part"
_STALE = 24 * 3600.0
"""Seconds after which a file that was being written belongs to nobody."""


class Gathered(Protocol):
    """Something gathered from data, in memory that does not grow with them."""

    @property
    def key(self) -> str:
        """Names the statistic and every setting that its numbers depend on; part of the cache's key."""
        ...

    def merge(self, other: Self) -> None:
        """Add what another has gathered from the samples behind those that this one has seen.

        The law: merged, two parts of the data are, to rounding, what one pass over both gathers.
        """
        ...

    def state(self) -> dict[str, Array]:
        """Everything that was gathered, as arrays by name."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what an earlier pass gathered."""
        ...


K = TypeVar("K", bound=Gathered)


def through_cache(
    statistics: Sequence[K],
    gather: Callable[[Sequence[K]], None],
    model: ir.Model,
    data: str,
    cache: Path | None,
) -> None:
    """Gather what the cache does not hold, and put it there.

    Args:
        statistics: What is wanted; they are updated in place.
        gather: Updates those that were not cached.
        model: What the numbers depend on.
        data: The fingerprint of what else they depend on.
        cache: The folder, if there is one.
    """
    files: dict[str, Path] = {}
    if cache is not None:
        basis = f"{fingerprint(model)}|{data}"
        files = {s.key: cache / f"{hashlib.sha256(f'{basis}|{s.key}'.encode()).hexdigest()}.npz" for s in statistics}
    missing = [s for s in statistics if s.key not in files or not _restored(s, files[s.key])]
    if not missing:
        logger.info("every observation was cached")
        return
    gather(missing)
    for statistic in missing:
        if statistic.key in files:
            _store(files[statistic.key], statistic.state())


def default_cache() -> Path:
    """The folder of the caller's cache: `$PRUNEGRAPH_CACHE`, else below `$XDG_CACHE_HOME` or `~/.cache`."""
    chosen = os.environ.get("PRUNEGRAPH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunegraph" / "observations"


def _restored(statistic: Gathered, path: Path) -> bool:
    """Whether the file held what was gathered; one that is damaged, altered or of another version counts as absent."""
    state = _read(path)
    if state is None:
        return False
    statistic.restore(state)
    return True


def _read(path: Path) -> dict[str, Array] | None:
    """What `_store` wrote, to the last bit; None for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = dict(archive)
        checksum = bytes(state.pop(_CHECKSUM))
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy, zipfile and zlib raise whatever they meet in a file that is not theirs
        logger.info("a cached observation cannot be read and is gathered again: %s: %s", path, error)
        return None
    if checksum != _checksum(path, state):
        logger.info("a cached observation is not what was written and is gathered again: %s", path)
        return None
    return state


def _store(path: Path, state: Mapping[str, Array]) -> None:
    """Write aside and rename, so that nobody reads half a file; a full disk is no reason to fail."""
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=_ASIDE, delete=False) as file:
            aside = Path(file.name)
            checksum = np.frombuffer(_checksum(path, state), dtype=np.uint8)
            np.savez(file, allow_pickle=False, **state, **{_CHECKSUM: checksum})
        os.replace(aside, path)
        aside = None
    except OSError as error:
        logger.warning("the observations are not cached: %s", error)
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    for path in folder.glob(f"*{_ASIDE}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()


def _checksum(path: Path, state: Mapping[str, Array]) -> bytes:
    """A hash of the numbers, of what they are filed under, and of the version that knows how to read them."""
    digest = hashlib.blake2b(repr((_FORMAT, installed_version(otherwise=""), path.name)).encode(), digest_size=32)
    for name, value in sorted(state.items()):
        array = np.ascontiguousarray(value)
        digest.update(repr((name, array.dtype.str, np.shape(value))).encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.digest()
