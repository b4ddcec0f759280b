"""What was gathered before is not gathered again: a folder of results by all that they depend on."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]


class Gathered(Protocol):
    """Something gathered from data, in memory that does not grow with them."""

    @property
    def key(self) -> str:
        """Names the statistic and every setting that its numbers depend on; part of the cache's key."""
        ...

    def state(self) -> dict[str, Array]:
        """Everything gathered."""
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


def fingerprint(model: ir.Model) -> str:
    """A hash of everything that decides what a model computes."""
    digest = hashlib.blake2b()
    for node in model.graph.all_nodes():
        parts = [node.domain, node.op_type, *(v.name if v is not None else None for v in node.inputs)]
        digest.update(
            repr([*parts, *(v.name for v in node.outputs), *sorted(map(str, node.attributes.values()))]).encode()
        )
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            digest.update(f"{name}{value.const_value.shape}{value.const_value.dtype}".encode())
            digest.update(np.ascontiguousarray(value.const_value.numpy()).tobytes())
    return digest.hexdigest()


def default_cache() -> Path:
    """The folder of the caller's cache: `$PRUNEGRAPH_CACHE`, else below `$XDG_CACHE_HOME` or `~/.cache`."""
    chosen = os.environ.get("PRUNEGRAPH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunegraph" / "observations"


def _restored(statistic: Gathered, path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as archive:
            statistic.restore(dict(archive))
    except (OSError, ValueError, KeyError):
        return False
    return True


def _store(path: Path, state: Mapping[str, Array]) -> None:
    """Write aside and rename, so that nobody reads half a file; a full disk is no reason to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.savez(file, allow_pickle=False, **state)
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("the observations are not cached: %s", error)
