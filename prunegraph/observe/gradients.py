"""Gradients for scorers: what a scorer reads of a backward pass, and the loss that it is a gradient of.

Nothing here computes a gradient: whoever can (`prunegraph.torch_twin.backward`, by torch) is handed in as a `Backward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.arrays import Floats
from prunegraph.errors import UsageError
from prunegraph.observe.cache import Gathered
from prunegraph.observe.metric import is_embedding
from prunegraph.observe.stream import Array, Inputs, SampleProgress
from prunegraph.observe.text import Batch


class GradientStatistic(Gathered, Protocol):
    """Something gathered from a backward pass."""

    @property
    def samples(self) -> int | None:
        """How many samples it wants to see, the first of the data; None for all."""
        ...

    def activations(self) -> Sequence[str]:
        """Values of the model of which it reads value and gradient."""
        ...

    def weights(self) -> Sequence[str]:
        """Initializers of the model of which it reads value and gradient."""
        ...

    def update(self, batch: Batch, pairs: Mapping[str, tuple[Array, Array]]) -> None:
        """Take in one batch: by name the value, and the gradient of the batch's summed loss; they must not be kept."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """Cross-entropy of one output: an example's loss is the mean over its tokens, if it has some.

    Attributes:
        output: The logits, `[batch, classes]` or `[batch, tokens, vocabulary]`.
        labelled: Whether the labels of the samples are the targets; else the model's own argmax is.
    """

    output: str
    labelled: bool

    @property
    def target(self) -> str:
        """What the targets are, in words."""
        return "labels" if self.labelled else "the model's own predictions"

    def targets(self, batch: Batch, logits: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The class of every row of logits, and what its cross-entropy weighs; both have the shape of logits' rows.

        `sum(weights * cross_entropy(logits, classes))` is the batch's summed loss: rows that fill up a fixed batch and
        padded tokens weigh nothing, the tokens of one example one together.

        Args:
            batch: The batch.
            logits: What the model said to it, `[batch, classes]` or `[batch, tokens, vocabulary]`.

        Raises:
            UsageError: a sample has no label, or one that the model has no class for.
        """
        count = len(batch.samples)
        classes = np.asarray(logits.argmax(axis=-1), dtype=np.int64)
        weights = np.zeros(classes.shape, dtype=np.float32)
        weights[:count] = 1
        if classes.ndim == 2:
            if batch.mask is not None and batch.mask.shape[1] == classes.shape[1]:
                weights[:count] = batch.mask
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
        if self.labelled:
            classes[:count] = labels_of(batch, logits.shape[-1])
        return classes, weights

    def losses(self, batch: Batch, logits: Array, classes: npt.NDArray[np.int64] | None = None) -> Floats:
        """The loss of every example of a batch, `[samples]`.

        Args:
            batch: The batch.
            logits: What the model said to it.
            classes: The targets, where they are those of another run (the whole model's argmax).
        """
        own, weights = self.targets(batch, logits)
        classes = own if classes is None else classes
        wide = logits.astype(np.float64)
        wide -= wide.max(axis=-1, keepdims=True)
        spoken = np.take_along_axis(wide, classes[..., None], axis=-1)[..., 0]
        each = weights * (np.log(np.exp(wide).sum(axis=-1)) - spoken)
        return np.asarray(each.reshape(len(each), -1).sum(axis=1)[: len(batch.samples)])

    @staticmethod
    def of(model: ir.Model, analysis: Analysis, inputs: Inputs, output: str = "") -> Objective:
        """The objective for a model and data.

        Args:
            model: The normalized model.
            analysis: Its analysis.
            inputs: The data; labels of the first sample tell that there are labels.
            output: The logits; the first output if empty.

        Raises:
            UsageError: there is no such output, or it has no classes to tell apart.
        """
        outputs = [value.name or "" for value in model.graph.outputs]
        output = output or outputs[0]
        if output not in outputs:
            raise UsageError(f"there is no output {output!r}", hint=f"choose {', '.join(outputs)}")
        axes = analysis.solution.facts.shapes.get(output, ())
        if len(axes) not in (2, 3) or axes[-1][0] < 2 or is_embedding(output, analysis):
            shape = [f"{axis[0]}" if len(set(axis)) == 1 else "?" for axis in axes]
            hint = "give a classifier or language model, or name the output of its logits: scorer option output=NAME"
            raise UsageError(f"{output} [{', '.join(shape)}] holds no logits: it has no loss to take", hint=hint)
        return Objective(output, len(axes) == 2 and inputs.source.first().label is not None)


def labels_of(batch: Batch, classes: int) -> npt.NDArray[np.int64]:
    """The labels of a batch.

    Raises:
        UsageError: a sample has none, or one that is no class.
    """
    labels: list[Any] = [sample.label for sample in batch.samples]
    wrong = next((label for label in labels if label is None or not 0 <= label < classes), 0)
    if wrong != 0:
        what = "an example has no label" if wrong is None else f"the label {wrong} is no class"
        raise UsageError(f"{what}: the model has the classes 0 to {classes - 1}", hint="give every example its class")
    return np.array(labels, dtype=np.int64)


Backward = Callable[[ir.Model, Inputs, Sequence[GradientStatistic], Objective, SampleProgress | None], None]
"""Runs the data through a normalized model and back once, and updates every statistic after each batch.

Raises a `PruneGraphError` where it cannot differentiate the model."""
