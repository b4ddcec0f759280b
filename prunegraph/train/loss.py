"""The training loss (labels mixed with distillation), and the metric of validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunegraph.arrays import Array
from prunegraph.errors import UsageError
from prunegraph.observe.gradients import Objective
from prunegraph.observe.metric import cosines, rows_of
from prunegraph.observe.text import Batch
from prunegraph.train.options import Finetune

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy of the labels, mixed with the distance to a teacher (Hinton et al., arXiv 1503.02531).

    ``(1 - w) · CE(labels, s) + w · T² · KL(softmax(t / T) || softmax(s / T)) + v · Σ MSE(h_s, h_t) / Var(h_t)``: every
    example weighs the same, however many tokens it has; padding weighs nothing.

    Attributes:
        objective: The output, and whether labels are its targets.
        distill: w; 1 where there are no labels, 0 where there is no teacher.
        temperature: T.
        hidden: v, shared by the hidden states.
        cosine: Whether the distance to the teacher's output is ``1 - cosine`` instead, for an output of vectors.
    """

    objective: Objective
    distill: float
    temperature: float
    hidden: float
    cosine: bool

    @staticmethod
    def of(options: Finetune, output: str, *, labelled: bool, teacher: bool) -> Loss:
        """The loss that the data and the teacher allow.

        Args:
            options: What is wished.
            output: The output that is trained.
            labelled: Whether there are labels.
            teacher: Whether there is one.
        """
        distill = (options.distill if labelled else 1.0) if teacher else 0.0
        hidden = options.hidden if teacher else 0.0
        return Loss(Objective(output, labelled), distill, options.temperature, hidden, options.metric == "cosine")

    def __call__(self, batch: Batch, student: Sequence[Tensor], teacher: Sequence[Tensor] | None) -> Tensor:
        """The mean over the examples of a batch.

        Args:
            batch: The batch.
            student: The trained output, and then hidden states.
            teacher: The same of the teacher.

        Raises:
            UsageError: the output holds no logits, or a label is none of its classes.
        """
        import torch
        from torch.nn.functional import cross_entropy

        logits = student[0].float()
        if logits.ndim not in (2, 3) or (self.objective.labelled and logits.ndim != 2):
            shape = list(logits.shape)
            raise UsageError(
                f"{self.objective.output} {shape} is not [batch, classes] or [batch, tokens, classes]",
                hint="name the output of the logits (output=…), or leave out labels and distil a language model",
            )
        classes, weights = self.objective.targets(batch, logits.detach().cpu().numpy())
        weight = torch.from_numpy(weights).to(logits.device) / len(batch.samples)
        total = logits.new_zeros(())
        if self.distill < 1 and self.objective.labelled:
            each = cross_entropy(logits, torch.from_numpy(classes).to(logits.device), reduction="none")
            total = total + (1 - self.distill) * (weight * each).sum()
        if teacher is not None and self.distill:
            total = total + self.distill * (weight * self._distance(logits, teacher[0].float())).sum()
        if teacher is not None and self.hidden and len(student) > 1:
            pairs = zip(student[1:], teacher[1:], strict=True)
            total = total + self.hidden * sum(_difference(s, t, batch) for s, t in pairs) / (len(student) - 1)
        return total

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        from torch.nn.functional import cosine_similarity, kl_div

        if self.cosine:
            return 1 - cosine_similarity(student, teacher, dim=-1)
        s, t = ((x / self.temperature).log_softmax(dim=-1) for x in (student, teacher))
        return kl_div(s, t, reduction="none", log_target=True).sum(dim=-1) * self.temperature**2


def _difference(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """Mean squared difference of what is no padding, as a share of the teacher's variance."""
    import torch

    student, teacher = student[: len(batch.samples)].float(), teacher[: len(batch.samples)].float()
    if batch.mask is not None and student.shape[:2] == batch.mask.shape:
        mask = torch.from_numpy(batch.mask).to(student.device)
        student, teacher = student[mask], teacher[mask]
    return (student - teacher).square().mean() / teacher.var().clamp_min(1e-12)


class Tally:
    """A metric, gathered batch by batch: a mean over examples or, where every token has a row, over tokens."""

    def __init__(self, name: str) -> None:
        """Start at nothing; `name` is one of "accuracy", "agreement" and "cosine"."""
        self.name = name
        self._total = self._count = 0.0

    def update(self, batch: Batch, student: Array, teacher: Array | None) -> None:
        """Take in one batch: the output, and the teacher's where the metric is about that."""
        student_rows = rows_of(student, batch)
        if self.name == "accuracy":
            each = student_rows.argmax(axis=-1) == np.array([sample.label for sample in batch.samples])
        else:
            assert teacher is not None
            teacher_rows = rows_of(teacher, batch)
            each = (
                cosines(student_rows, teacher_rows)
                if self.name == "cosine"
                else student_rows.argmax(axis=-1) == teacher_rows.argmax(axis=-1)
            )
        self._total += float(np.sum(each))
        self._count += len(each)

    @property
    def value(self) -> float:
        """The mean over everything that was taken in."""
        return self._total / self._count


def metric_name(options: Finetune, *, labelled: bool, teacher: bool) -> str:
    """The metric that validation goes by.

    Raises:
        UsageError: accuracy is asked for without labels, or a comparison without a teacher.
    """
    name = options.metric
    if name == "auto":
        name = "accuracy" if labelled else "agreement"
    if name == "accuracy" and not labelled:
        raise UsageError("accuracy needs labels, and the data have none", hint="take agreement with the teacher")
    if name != "accuracy" and not teacher:
        raise UsageError(f"{name} is with a teacher, and none is given", hint="teacher=…, --teacher MODEL")
    return name
