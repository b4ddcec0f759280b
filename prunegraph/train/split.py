"""Split data into training and validation examples, and batch an epoch in an order of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import onnx_ir as ir

from prunegraph.errors import UsageError
from prunegraph.observe.data import Sample, Samples
from prunegraph.observe.stream import Data, Inputs
from prunegraph.observe.text import WINDOW, Batch, batches
from prunegraph.train.options import Finetune


@dataclass(frozen=True, slots=True)
class Examples:
    """Data to train on, held in memory as they were read (texts untokenized).

    Attributes:
        inputs: The data as they fit the model.
        train: What is learnt from.
        validation: What is held out.
        fingerprint: Differs where the data differ.
    """

    inputs: Inputs
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    fingerprint: str

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.train[0].label is not None

    def epoch(self, number: int, seed: int) -> Iterator[Batch]:
        """One pass in an order of its own: batches of like length, so that little is padded, in random order."""
        rng = np.random.default_rng([seed, number])
        order = [self.train[k] for k in rng.permutation(len(self.train))]
        stream = self._batches(order)
        while window := list(islice(stream, WINDOW)):
            yield from (window[k] for k in rng.permutation(len(window)))

    def held_out(self) -> Iterator[Batch]:
        """The validation examples in batches, in order."""
        return self._batches(self.validation)

    def held_out_inputs(self) -> Inputs:
        """The validation data, for those who run a model themselves."""
        source = Samples(lambda: iter(self.validation), "", self.inputs.source.name)
        return replace(self.inputs, source=source)

    def _batches(self, samples: list[Sample] | tuple[Sample, ...]) -> Iterator[Batch]:
        source = Samples(lambda: iter(samples), "", self.inputs.source.name)
        return batches(source, self.inputs.reader, self.inputs.specs, self.inputs.batch_size)


def examples(model: ir.Model, data: Data, validation: Data | None, options: Finetune, *, teacher: bool) -> Examples:
    """Read the data and split them.

    Args:
        model: What is trained.
        data: What to learn from.
        validation: What to hold out; a share of `data` if None.
        options: See there.
        teacher: Whether there is one, without which labels are needed.

    Raises:
        UsageError: the data do not fit the model, there are no labels and no teacher, or nothing is left for one part.
    """
    inputs = replace(data, batch_size=options.batch_size).inputs(model)
    train, known = tuple(inputs.source.read()), inputs.fingerprint
    if validation is not None:
        check = replace(validation, batch_size=options.batch_size, tokenizer=validation.tokenizer or data.tokenizer)
        fitted = check.inputs(model)
        held_out, known = tuple(fitted.source.read()), f"{known}|{fitted.fingerprint}"
    else:
        order = np.random.default_rng(options.seed).permutation(len(train))
        count = round(options.validation_share * len(train))
        held_out = tuple(train[k] for k in sorted(order[:count]))
        train = tuple(train[k] for k in sorted(order[count:]))
    if not train or not held_out:
        what = "to validate on" if train else "to train on"
        raise UsageError(
            f"{inputs.source.name} leaves no example {what}",
            hint="give more data, validation data of their own (validation=…, --validation FILE), or another share",
        )
    _check_labels(train, held_out, inputs.source.name, teacher)
    return Examples(inputs, train, held_out, known)


def _check_labels(train: tuple[Sample, ...], held_out: tuple[Sample, ...], name: str, teacher: bool) -> None:
    there = {sample.label is not None for sample in (*train, *held_out)}
    if len(there) > 1:
        raise UsageError(f"{name}: some examples have a label and some have none", hint="give all of them one, or none")
    if there == {False} and not teacher:
        raise UsageError(
            f"{name} has no labels, and there is no teacher to learn from",
            hint="add a column of class numbers (label), or give the unpruned model: teacher=…, --teacher MODEL",
        )
