"""The training loop: steps, validation after each epoch, the best weights kept, checkpoints in between."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.text import Batch
from prunegraph.train.checkpoint import Checkpoint
from prunegraph.train.loss import Loss, Tally
from prunegraph.train.network import Network
from prunegraph.train.options import Finetune
from prunegraph.train.split import Examples

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

TrainingProgress = Callable[[str, int, int], None]
"""Called with what goes on, the examples seen in this epoch, and how many there are."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training data led to; number 0 is the model as it was given.

    Attributes:
        number: Which pass.
        loss: The mean loss of the training examples, as the steps saw it; NaN for number 0.
        validation_loss: The mean loss of the validation examples.
        metric: The metric of the validation examples.
    """

    number: int
    loss: float
    validation_loss: float
    metric: float

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: the metric, and the loss where that is equal."""
        return self.metric, -self.validation_loss


@dataclass
class _Position:
    """How far the running epoch has come."""

    epoch: int = 1
    batches: int = 0
    seen: int = 0
    loss: float = 0.0


@dataclass
class Trainer:
    """Trains a student, by labels, by a teacher, or by both.

    Attributes:
        student: What is trained.
        teacher: What it learns from besides, if anything.
        examples: The data.
        loss: What is minimized.
        metric: The name of what validation goes by.
        options: See there.
        checkpoint: Where the state is kept, if anywhere.
        progress: Called after every step.
        history: What every epoch led to.
    """

    student: Network
    teacher: Network | None
    examples: Examples
    loss: Loss
    metric: str
    options: Finetune
    checkpoint: Checkpoint | None = None
    progress: TrainingProgress | None = None
    history: list[Epoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the optimizer; weights of rank one (biases, norms) do not decay."""
        import torch

        named = self.student.trained(self.options.freeze)
        decay = self.options.weight_decay
        groups = [
            {"params": [w for _, w in named if w.ndim > 1], "weight_decay": decay},
            {"params": [w for _, w in named if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self._weights = [weight for _, weight in named]
        self._optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.options.lr)
        self._at = _Position()
        self._best: dict[str, Tensor] = {}

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept: the first of the best ones."""
        return max(self.history, key=lambda epoch: (*epoch.rank, -epoch.number))

    def run(self) -> None:
        """Train, and leave the student with the weights that validated best.

        Raises:
            PruneGraphError: the loss is no number any more, or no weight moves it.
        """
        if self.checkpoint is not None and self.checkpoint.state is not None:
            self.checkpoint.resume(self._restore)
        else:
            import torch

            torch.manual_seed(self.options.seed)
            self._validate(math.nan)
        while self._at.epoch <= self.options.epochs and self._at.epoch - 1 - self.best.number < self.options.patience:
            self._epoch()
            self._validate(self._at.loss / self._at.seen)
            self._at = _Position(self._at.epoch + 1)
            self._save(now=True)
        self.student.module.load_state_dict(self._best)

    def _epoch(self) -> None:
        """What is left of the epoch that is running."""
        total = len(self.examples.train)
        self.student.module.train()
        for number, batch in enumerate(self.examples.epoch(self._at.epoch, self.options.seed)):
            if number < self._at.batches:
                continue
            count = len(batch.samples)
            done = (self._at.epoch - 1 + (self._at.seen + count / 2) / total) / self.options.epochs
            loss = self._step(batch, self.options.rate(done))
            self._at.batches, self._at.seen, self._at.loss = number + 1, self._at.seen + count, self._at.loss + loss
            self._save(now=False)
            self._tell("", self._at.seen, total)

    def _step(self, batch: Batch, rate: float) -> float:
        """One step of the optimizer; the summed loss of the batch."""
        from torch.nn.utils import clip_grad_norm_

        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(batch, self.student(batch.feeds), self._taught(batch))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise PruneGraphError(
                f"the loss is {value} after {self._at.batches} steps of epoch {self._at.epoch}",
                hint="lower the learning rate (lr=…, --lr)",
            )
        if not loss.requires_grad:
            hint = "choose another output (output=…): no weight reaches this one, or only by way of whole numbers"
            raise UsageError("no weight that is trained moves the output", hint=hint)
        self._optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self._weights, self.options.clip)
        self._optimizer.step()
        return value * len(batch.samples)

    def _taught(self, batch: Batch) -> Sequence[Tensor] | None:
        """What the teacher says."""
        import torch

        if self.teacher is None:
            return None
        self.teacher.module.eval()
        with torch.no_grad():
            return self.teacher(batch.feeds)

    def _validate(self, trained: float) -> None:
        """Judge the student as it is, and keep its weights if it is the best so far."""
        import torch

        tally, total, count = Tally(self.metric), 0.0, 0
        self.student.module.eval()
        for batch in self.examples.held_out():
            with torch.no_grad():
                student_outputs, teacher_outputs = self.student(batch.feeds), self._taught(batch)
                total += float(self.loss(batch, student_outputs, teacher_outputs)) * len(batch.samples)
            tally.update(
                batch,
                student_outputs[0].cpu().numpy(),
                teacher_outputs[0].cpu().numpy() if teacher_outputs is not None else None,
            )
            count += len(batch.samples)
            self._tell("validating, ", count, len(self.examples.validation))
        self.history.append(Epoch(len(self.history), trained, total / count, tally.value))
        if self.best is self.history[-1]:
            self._best = {name: value.detach().clone() for name, value in self.student.module.state_dict().items()}
        logger.info("epoch %s", self.history[-1])

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is None:
            return
        parts = [f"{what}epoch {min(self._at.epoch, self.options.epochs)}/{self.options.epochs}"]
        parts += [f"loss {self._at.loss / self._at.seen:.3f}"] if self._at.seen else []
        parts += [f"{self.metric} {self.history[-1].metric:.3f}"] if self.history else []
        self.progress(", ".join(parts), done, total)

    def _save(self, *, now: bool) -> None:
        if self.checkpoint is not None:
            self.checkpoint.save(self._state, now=now)

    def _state(self) -> dict[str, Any]:
        import torch

        return {
            "module": self.student.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "position": asdict(self._at),
            "history": [asdict(epoch) for epoch in self.history],
            "random": torch.get_rng_state(),
        }

    def _restore(self, state: Any) -> None:
        import torch

        self.student.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = {name: value.to(self.student.device) for name, value in state["best"].items()}
        self._at = _Position(**state["position"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        torch.set_rng_state(state["random"])
