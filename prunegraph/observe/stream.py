"""Observation: one streaming pass over calibration data, shared by everything that wants to know something.

A statistic names the values that it reads and is given them batch by batch; nothing else of a batch is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.data import Data, Source, open_data
from prunegraph.observe.feeds import InputSpec, input_specs
from prunegraph.observe.session import CannotRun, open_session, run, widened, widened_feeds
from prunegraph.observe.tapped import tapped
from prunegraph.observe.taps import Tap
from prunegraph.observe.text import MAX_LENGTH, Batch, TextReader, batches, check_data

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Progress = Callable[[int], None]
"""Called with the number of samples seen so far."""

CPU = ("CPUExecutionProvider",)


class Statistic(Protocol):
    """Something gathered from a pass, in memory that does not grow with the data."""

    @property
    def key(self) -> str:
        """Names the statistic and every setting that its numbers depend on; part of the cache's key."""
        ...

    def taps(self) -> Sequence[Tap]:
        """The values that it reads."""
        ...

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Take in one batch; `values` are by the names of the taps and must not be kept."""
        ...

    def state(self) -> dict[str, Array]:
        """Everything gathered."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what an earlier pass gathered."""
        ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """Data that fit a model.

    Attributes:
        source: The samples.
        reader: The tokenizer, where the samples are texts.
        specs: The inputs that they are for.
        batch_size: How many run together, unless the model fixes it.
    """

    source: Source
    reader: TextReader | None
    specs: tuple[InputSpec, ...]
    batch_size: int = 16

    @property
    def fingerprint(self) -> str:
        """Differs where another input reaches the model."""
        return f"{self.source.fingerprint}|{self.reader.fingerprint if self.reader else ''}"

    def batches(self) -> Iterable[Batch]:
        """One pass."""
        return batches(self.source, self.reader, self.specs, self.batch_size)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Data before it is known which model they are for.

    Attributes:
        data: See `open_data`.
        tokenizer: A folder or a `tokenizer.json`, where the data are texts.
        batch_size: How many samples run together.
        max_length: Tokens of a text that are read.
        text: Columns of text.
        label: Column of class numbers.
        limit: Read only so many samples.
    """

    data: Data | Source
    tokenizer: str | os.PathLike[str] | None = None
    batch_size: int = 16
    max_length: int = MAX_LENGTH
    text: Sequence[str] = ()
    label: str = ""
    limit: int | None = None

    def opened(self) -> Calibration:
        """The same with the data opened, so that what is wrong with them is told before a model is read.

        Raises:
            UsageError: see `open_data`.
        """
        source = open_data(self.data, text=self.text, label=self.label, limit=self.limit)
        return replace(self, data=source, limit=None)

    def inputs(self, model: ir.Model) -> Inputs:
        """The data for this model.

        Raises:
            UsageError: they do not fit it.
        """
        return prepare(
            model,
            self.data,
            self.tokenizer,
            batch_size=self.batch_size,
            max_length=self.max_length,
            text=self.text,
            label=self.label,
            limit=self.limit,
        )


def prepare(
    model: ir.Model,
    data: Data | Source | Inputs,
    tokenizer: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 16,
    max_length: int = MAX_LENGTH,
    text: Sequence[str] = (),
    label: str = "",
    limit: int | None = None,
) -> Inputs:
    """Open data for a model and check that they fit, before anything is run.

    Args:
        model: The model.
        data: See `open_data`.
        tokenizer: A folder or a `tokenizer.json`, where the data are texts.
        batch_size: How many samples run together.
        max_length: Tokens of a text that are read.
        text: Columns of text.
        label: Column of class numbers.
        limit: Read only so many samples.

    Raises:
        UsageError: the data are empty or do not fit the model; see `check_data`.
    """
    if isinstance(data, Inputs):
        return data
    if batch_size < 1 or max_length < 1:
        raise UsageError("batch size and length must be positive", hint="16 and 128 suit most machines")
    specs = input_specs(model.graph)
    source = open_data(data, text=text, label=label, limit=limit)
    reader = None
    if source.first().texts and tokenizer is not None:
        reader = TextReader(tokenizer, max_length=max_length)
    check_data(source, reader, specs)
    return Inputs(source, reader, specs, batch_size)


def observe(
    model: ir.Model,
    inputs: Inputs,
    statistics: Sequence[Statistic],
    *,
    providers: Sequence[str] = CPU,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Run the data through a model once and let every statistic see the values that it asks for.

    Args:
        model: A normalized model; it is not changed.
        inputs: What to run it on.
        statistics: What to gather; they are updated in place.
        providers: Execution providers of ONNX Runtime.
        cache: Folder for results by model, data and statistic; what lies there is not gathered again.
        progress: Called after every batch.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """
    files: dict[str, Path] = {}
    if cache is not None:
        basis = f"{fingerprint(model)}|{inputs.fingerprint}"
        files = {s.key: cache / f"{hashlib.sha256(f'{basis}|{s.key}'.encode()).hexdigest()}.npz" for s in statistics}
    missing = [s for s in statistics if s.key not in files or not _restored(s, files[s.key])]
    if not missing:
        logger.info("every observation was cached")
        return
    taps = list(dict.fromkeys(tap for statistic in missing for tap in statistic.taps()))
    _pass(tapped(widened(model), taps), [tap.value for tap in taps], inputs, missing, providers, progress)
    for statistic in missing:
        if statistic.key in files:
            _store(files[statistic.key], statistic.state())


def _pass(
    model: ir.Model,
    names: Sequence[str],
    inputs: Inputs,
    statistics: Sequence[Statistic],
    providers: Sequence[str],
    progress: Progress | None,
) -> None:
    wanted = {statistic.key: [tap.value for tap in statistic.taps()] for statistic in statistics}
    seen = 0
    try:
        with open_session(model, providers=providers) as session:
            for batch in inputs.batches():
                values = dict(zip(names, run(session, widened_feeds(batch.feeds), names), strict=True)) if names else {}
                for statistic in statistics:
                    statistic.update(batch, {name: values[name] for name in wanted[statistic.key]})
                del values
                seen += len(batch.samples)
                if progress is not None:
                    progress(seen)
    except CannotRun as error:
        hint = "check the data, shorten the texts (max_length) or give inputs that the model accepts"
        raise PruneGraphError(f"ONNX Runtime does not run the model on the data: {error}", hint=hint) from error


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


def _restored(statistic: Statistic, path: Path) -> bool:
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
