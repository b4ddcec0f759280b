"""Options of fine-tuning: learning rate, epochs, distillation and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunegraph.errors import UsageError
from prunegraph.moved import former_names
from prunegraph.observe.metric import METRICS

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Finetune:
    """How a model is fine-tuned.

    Attributes:
        epochs: Passes over the training data, at most.
        lr: The highest learning rate of AdamW.
        batch_size: Examples a step, unless the model fixes it.
        distill: What the distance to the teacher's output weighs; the labels weigh the rest of 1.
        temperature: What logits are divided by before they are compared with the teacher's.
        hidden: What the distance to the teacher's hidden states weighs, on top of that.
        patience: Epochs without a better validation metric after which training stops.
        validation_share: Which share of the data is held out where no validation data are given.
        freeze: Patterns of initializers that are not trained, such as ``"*word_embeddings*"``.
        weight_decay: AdamW's, for weights of rank 2 and more.
        warmup: Over which share of the training the learning rate rises; over the rest it falls to zero, linearly.
        clip: The largest norm of a step's gradient.
        metric: "accuracy" of labels, "agreement" with the teacher's argmax, "cosine" to the teacher's vectors, which
            also makes the cosine what is distilled; "auto" is accuracy where there are labels, else agreement.
        output: The output that is trained; the first if empty.
        seed: For the order of the examples and the split.
        device: "cpu" or "cuda".
    """

    epochs: int = 3
    lr: float = 5e-5
    batch_size: int = 32
    distill: float = 0.5
    temperature: float = 2.0
    hidden: float = 0.0
    patience: int = 2
    validation_share: float = 0.1
    freeze: Sequence[str] = ()
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    metric: str = "auto"
    output: str = ""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            UsageError: a value cannot be.
        """
        checks = (
            (self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}", "3 suits most models"),
            (self.lr > 0, f"the learning rate must be positive, not {self.lr}", "5e-5 suits most encoders"),
            (self.batch_size >= 1, f"the batch size must be at least 1, not {self.batch_size}", "32 suits most"),
            (0 <= self.distill <= 1, f"the weight of distillation must be in [0, 1], not {self.distill}", "try 0.5"),
            (self.temperature > 0, f"the temperature must be positive, not {self.temperature}", "2 is usual"),
            (self.hidden >= 0, f"the weight of hidden states must not be negative: {self.hidden}", "0 leaves it out"),
            (self.patience >= 1, f"the patience must be at least 1 epoch, not {self.patience}", "2 is the default"),
            (
                0 < self.validation_share < 1,
                f"the share held out must be between 0 and 1, not {self.validation_share}",
                "0.1 holds out a tenth; validation data of your own need no share",
            ),
            (0 <= self.warmup < 1, f"the warm-up must be in [0, 1), not {self.warmup}", "0.1 is usual"),
            (self.clip > 0, f"the clipping norm must be positive, not {self.clip}", "1 is usual"),
            (self.metric in METRICS, f"there is no metric {self.metric!r}", f"choose {', '.join(METRICS)}"),
            (
                self.device.partition(":")[0] in DEVICES,
                f"there is no device {self.device!r}",
                f"choose {' or '.join(DEVICES)}",
            ),
        )
        for holds, message, hint in checks:
            if not holds:
                raise UsageError(message, hint=hint)

    def rate(self, done: float) -> float:
        """The learning rate after this share of the training.

        >>> [round(Finetune(lr=1.0).rate(done), 2) for done in (0.05, 0.1, 0.55, 1.0)]
        [0.5, 1.0, 0.5, 0.0]
        """
        rising = done / self.warmup if self.warmup else 1.0
        return self.lr * min(rising, (1 - done) / (1 - self.warmup))


__getattr__ = former_names(__name__, TrainOptions=Finetune)
