"""Gather statistics in one streaming pass over calibration data, shared by everything that needs it.

A statistic names the values that it reads and is given them batch by batch; nothing else of a batch is kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.names import as_patterns
from prunegraph.errors import UsageError
from prunegraph.observe.cache import through_cache
from prunegraph.observe.data import DataLike, Sample, Samples, open_data
from prunegraph.observe.images import Images, as_inputs
from prunegraph.observe.jobs import can_be_sent, gather_in_jobs
from prunegraph.observe.one_pass import SampleProgress as SampleProgress
from prunegraph.observe.one_pass import Statistic as Statistic
from prunegraph.observe.one_pass import gather_in_one_pass
from prunegraph.observe.run_batches import run_batches as run_batches
from prunegraph.observe.text import MAX_LENGTH, Batch, TextReader, batches, check_data
from prunegraph.runtime.inputs import InputSpec, input_specs, with_sizes
from prunegraph.runtime.limits import UNLIMITED, Limits
from prunegraph.runtime.providers import CPU, execution_providers

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Data that fit a model.

    Attributes:
        source: The samples.
        reader: The tokenizer, where the samples are texts.
        specs: The inputs that they are for.
        batch_size: How many run together, unless the model fixes it.
        providers: Execution providers of ONNX Runtime that run them.
        limits: What a batch may take.
        jobs: How many parts of the data are gathered at a time, see `Data`.
    """

    source: Samples
    reader: TextReader | None
    specs: tuple[InputSpec, ...]
    batch_size: int = 16
    providers: tuple[str, ...] = CPU
    limits: Limits = UNLIMITED
    jobs: int | None = 1

    @property
    def fingerprint(self) -> str:
        """Differs where another input reaches the model."""
        return f"{self.source.fingerprint}|{self.reader.fingerprint if self.reader else ''}"

    def first(self, samples: int | None) -> Inputs:
        """The first samples only; all if None."""
        return self if samples is None else replace(self, source=open_data(self.source, limit=samples))

    def batches(self) -> Iterable[Batch]:
        """One pass over the data, batch by batch."""
        return batches(self.source, self.reader, self.specs, self.batch_size)


@dataclass(frozen=True, slots=True)
class Data:
    """What a model is run on, before it is known which model.

    >>> Data("reviews.txt", tokenizer="folder", providers="cuda").providers
    ('cuda',)

    Attributes:
        source: Texts (.txt .csv .tsv .jsonl .conllu), inputs (.npz), a folder of images, rows, or arrays by input; see
            `open_data`.
        tokenizer: A folder or a `tokenizer.json`, where the data are texts.
        batch_size: How many samples run together.
        max_length: Tokens of a text that are read.
        text: Columns of text.
        label: Column of class numbers.
        limit: Read only so many samples.
        label2id: Numbers of classes by name, for labels that are no numbers.
        providers: Execution providers that run them, see `execution_providers`.
        images: How images become inputs; `Images`, or the `preprocessor_config.json` that says so.
        jobs: How many parts of the data scorers and repair see at a time, each in a process of its own; all processors
            if -1. None leaves it to `joblib.parallel_config`, and so to a Dask or Ray cluster.
    """

    source: DataLike | Samples
    tokenizer: str | os.PathLike[str] | None = None
    batch_size: int = 16
    max_length: int = MAX_LENGTH
    text: str | Sequence[str] = ()
    label: str = ""
    limit: int | None = None
    providers: str | Sequence[str] = ()
    label2id: Mapping[str, int] = field(default_factory=dict)
    images: Images | Mapping[str, Any] | str | os.PathLike[str] | None = None
    jobs: int | None = 1

    @staticmethod
    def open(data: DataLike | Data | None) -> Data | None:
        """Data from what stands for them, opened; None where none are given.

        Raises:
            UsageError: see `opened`.
        """
        return None if data is None else Data.of(data).opened()

    @staticmethod
    def of(data: DataLike | Data) -> Data:
        """Data from what stands for them."""
        return data if isinstance(data, Data) else Data(data)

    def __post_init__(self) -> None:
        """Make tuples of columns and providers; a plain string is one of them."""
        for name in ("text", "providers"):
            object.__setattr__(self, name, as_patterns(getattr(self, name)))
        if self.images is not None:
            object.__setattr__(self, "images", Images.of(self.images))

    def opened(self) -> Data:
        """The same with the data opened, so that what is wrong with them is told before a model is read.

        Raises:
            UsageError: see `open_data` and `execution_providers`.
        """
        providers = execution_providers(as_patterns(self.providers))
        source = open_data(
            self.source, text=as_patterns(self.text), label=self.label, label2id=self.label2id, limit=self.limit
        )
        return replace(self, source=source, limit=None, providers=providers)

    def first(self, specs: Sequence[InputSpec] = ()) -> Sample:
        """The first example.

        Args:
            specs: The inputs of a model that it is for.

        Raises:
            UsageError: there is none, or the data cannot be read.
        """
        source = open_data(self.source, text=as_patterns(self.text), label=self.label, label2id=self.label2id)
        return (as_inputs(source, self._images, specs) if specs else source).first()

    @property
    def _images(self) -> Images | None:
        return None if self.images is None else Images.of(self.images)

    def sizes(self, model: ir.Model) -> dict[str, int]:
        """Lengths that the first example gives to dynamic dims of inputs, all but the first of each; none where texts.

        Raises:
            UsageError: there is no example, or the data cannot be read.
        """
        specs = input_specs(model.graph)
        sample = self.first(specs)
        return {
            dim: length
            for spec in specs
            if spec.name in sample.feeds and sample.feeds[spec.name].ndim == len(spec.dims) - 1
            for dim, length in zip(spec.dims[1:], sample.feeds[spec.name].shape, strict=True)
            if isinstance(dim, str)
        }

    def inputs(self, model: ir.Model, sizes: Mapping[str, int] | None = None) -> Inputs:
        """The data for this model.

        Args:
            model: What they are for.
            sizes: Lengths of dynamic dims at which alone it runs: a batch of one, a length that is baked in.

        Raises:
            UsageError: they do not fit it.
        """
        inputs = prepare(
            model,
            self.source,
            self.tokenizer,
            batch_size=self.batch_size,
            max_length=self.max_length,
            text=as_patterns(self.text),
            label=self.label,
            label2id=self.label2id,
            limit=self.limit,
            images=self._images,
        )
        if sizes:
            inputs = replace(inputs, specs=with_sizes(inputs.specs, sizes))
            check_data(inputs.source, inputs.reader, inputs.specs)
        return replace(inputs, providers=execution_providers(as_patterns(self.providers)), jobs=self.jobs)


def prepare(
    model: ir.Model,
    data: DataLike | Samples | Inputs,
    tokenizer: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 16,
    max_length: int = MAX_LENGTH,
    text: Sequence[str] = (),
    label: str = "",
    label2id: Mapping[str, int] | None = None,
    limit: int | None = None,
    images: Images | None = None,
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
        label2id: Numbers of classes by name, for labels that are no numbers.
        limit: Read only so many samples.
        images: How images become inputs.

    Raises:
        UsageError: the data are empty or do not fit the model; see `check_data` and `as_inputs`.
    """
    if isinstance(data, Inputs):
        return data
    if batch_size < 1 or max_length < 1:
        raise UsageError("batch size and length must be positive", hint="16 and 128 suit most machines")
    specs = input_specs(model.graph)
    source = open_data(data, text=text, label=label, label2id=label2id, limit=limit)
    source = as_inputs(source, images, specs)
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
    cache: Path | None = None,
    progress: SampleProgress | None = None,
) -> None:
    """Run the data through a model once and let every statistic see the values that it asks for.

    Args:
        model: A normalized model; it is not changed.
        inputs: What to run it on.
        statistics: What to gather; they are updated in place.
        cache: Folder for results by model, data and statistic; what lies there is not gathered again.
        progress: Called after every batch.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """

    def gather(missing: Sequence[Statistic]) -> None:
        one_pass = partial(gather_in_one_pass, inputs.providers, inputs.limits)
        apart = [each for each in missing if inputs.jobs != 1 and can_be_sent(each)]
        here = [each for each in missing if each not in apart]
        if apart:
            gather_in_jobs(model, inputs.batches(), apart, one_pass, inputs.jobs, progress)
        if here:
            one_pass(model, inputs.batches(), here, progress)

    through_cache(statistics, gather, model, inputs.fingerprint, cache)
