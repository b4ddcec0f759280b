"""`finetune`: a pruned model in, the same graph with weights that learnt again out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunegraph.clock import Clock
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.export.convert import Kind, Model, ModelLike, in_kind, kind_of, open_source
from prunegraph.export.onnx_file import save
from prunegraph.observe.data import DataLike
from prunegraph.observe.evaluation import Evaluation, evaluate_models
from prunegraph.observe.fingerprint import fingerprint
from prunegraph.observe.stream import Data
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened, widened_feeds
from prunegraph.train.checkpoint import Checkpoint
from prunegraph.train.hidden import shared_states, with_states
from prunegraph.train.loop import Epoch, Trainer, TrainingProgress
from prunegraph.train.loss import Loss, Tally, metric_name
from prunegraph.train.network import Network
from prunegraph.train.options import Finetune
from prunegraph.train.split import Examples, examples


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned model, and how it got there.

    Attributes:
        ir_model: The model: the given graph, other weights.
        metric: What validation went by: "accuracy", "agreement" or "cosine".
        before: The metric of the given model on the validation data, run by ONNX Runtime.
        after: That of the result.
        history: What every epoch led to, the given model first.
        best: The number of the epoch whose weights these are; 0 where none was better than the given ones.
        examples: How many were trained on, and how many validated.
        seconds: How long the parts of the work took.
        kind: What `model` is.
        evaluation: Accuracy of the original, the given and the tuned model on the validation data, side by side; None
            without labels or a teacher.
    """

    ir_model: ir.Model
    metric: str
    before: float
    after: float
    history: tuple[Epoch, ...]
    best: int
    examples: tuple[int, int]
    seconds: dict[str, float]
    kind: Kind = Kind.PROTO
    evaluation: Evaluation | None = None

    @cached_property
    def model(self) -> Model:
        """The model: an `onnx_ir.Model` or an `onnx_graphsurgeon.Graph` if one was given, else a `ModelProto`."""
        return in_kind(self.ir_model, self.kind)

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the model, whole or not at all.

        Raises:
            OutputError: the path is the input, or cannot be written.
        """
        return save(self.ir_model, path)

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `prunegraph finetune --json` prints."""
        return {
            "metric": {"name": self.metric, "before": self.before, "after": self.after},
            "examples": {"train": self.examples[0], "validation": self.examples[1]},
            "best": self.best,
            "history": [asdict(epoch) for epoch in self.history],
            "evaluation": self.evaluation.to_dict() if self.evaluation is not None else None,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def finetune(
    model: ModelLike,
    data: DataLike | Data,
    *,
    teacher: ModelLike | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    validation: DataLike | Data | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: TrainingProgress | None = None,
    **options: Any,
) -> FinetuneResult:
    """Train a pruned model again: AdamW, linear warm-up and decay, labels mixed with what the original model says.

    >>> from prunegraph import finetune
    >>> result = finetune("slim.onnx", "train.jsonl", teacher="model.onnx", tokenizer="folder")  # doctest: +SKIP
    >>> result.save("tuned.onnx")  # doctest: +SKIP

    A graph has no dropout left in it, so that there is none in training either. Of all epochs, the weights that
    validate best are returned, those given included.

    Args:
        model: A path, an `onnx.ModelProto`, an `onnx_ir.Model` or an `onnx_graphsurgeon.Graph`; it is not changed.
        data: Examples with labels, or without where there is a teacher: see `observe.data.open_data`. They are held
            in memory.
        teacher: The model before pruning; the pruned one learns to say what it says (Hinton et al., arXiv 1503.02531).
        tokenizer: The model's, a folder or a `tokenizer.json`, where the data are texts.
        validation: Examples to judge every epoch by; without them a share of `data` is held out.
        checkpoint: A folder to keep the state in, every minute and after every epoch.
        resume: Go on with the run whose state is there; the result is that of a run that was never interrupted.
        progress: Called after every step.
        options: Fields of `Finetune`: ``epochs=3, lr=5e-5, batch_size=32, distill=0.5, temperature=2.0, hidden=0.0,
            patience=2, validation_share=0.1, freeze=(), metric="auto", seed=0, device="cpu"`` and others.

    Raises:
        UsageError: an argument is wrong, or the data do not fit the model.
        ModelError: a model cannot be read, or an op cannot be trained.
        MissingExtra: torch is not installed.
        PruneGraphError: ONNX Runtime does not run the model, or the loss is no number any more.
    """
    settings = train_options(options)
    if resume and checkpoint is None:
        raise UsageError("there is no checkpoint to resume", hint="name its folder: checkpoint=…, --checkpoint FOLDER")
    clock = Clock()
    given, check = _opened(data, tokenizer), None if validation is None else _opened(validation, tokenizer)
    with clock.step("load"):
        student = open_source(model)
        original = None if teacher is None else open_source(teacher)
        dataset = examples(student, given, check, settings, teacher=original is not None)
    settings = replace(settings, output=_output(student, original, settings.output))
    metric = metric_name(settings, labelled=dataset.labelled, teacher=original is not None)
    about = _about(student, original, dataset, settings) if checkpoint is not None else {}
    kept = Checkpoint(checkpoint, about, resume=resume) if checkpoint is not None else None
    compared = metric == "accuracy" and original is not None and dataset.labelled  # side by side in the end
    with clock.step("judge the given model"):  # before torch sees it: here a model that cannot run is refused
        before = _judged(student, original, dataset, settings.output, metric, batches=1 if compared else None)
    with clock.step("translate"):
        trainer = _trainer(student, original, dataset, settings, metric)
    trainer.checkpoint, trainer.progress = kept, progress
    with clock.step("train"):
        trainer.run()
    from prunegraph.torch_twin import write_back

    with clock.step("judge the result"):
        tuned = write_back(student, trainer.student.module)
        evaluation = _evaluated(student, original, tuned, dataset, settings.output)
        if compared and evaluation is not None:
            before, after = (score.value for score in evaluation.scores[1:])
        else:
            after = _judged(tuned, original, dataset, settings.output, metric)
    sizes = (len(dataset.train), len(dataset.validation))
    history = tuple(trainer.history)
    return FinetuneResult(
        tuned, metric, before, after, history, trainer.best.number, sizes, clock.seconds, kind_of(model), evaluation
    )


def train_options(given: dict[str, Any]) -> Finetune:
    """Options by name.

    Raises:
        UsageError: there is no such option, or its value cannot be.
    """
    names = Finetune.__dataclass_fields__
    unknown = [name for name in given if name not in names]
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}", hint=f"options are {', '.join(names)}")
    return Finetune(**given)


def _opened(data: DataLike | Data, tokenizer: str | os.PathLike[str] | None) -> Data:
    return (data if isinstance(data, Data) else Data(data, tokenizer)).opened()


def _output(student: ir.Model, teacher: ir.Model | None, name: str) -> str:
    """The output that is trained.

    Raises:
        UsageError: the student or the teacher has none of that name, or the teacher reads something else.
    """
    names = [value.name or "" for value in student.graph.outputs]
    output = name or names[0]
    if output not in names:
        raise UsageError(f"there is no output {output!r}", hint=f"choose {', '.join(names)}")
    if teacher is None:
        return output
    there = [value.name or "" for value in teacher.graph.outputs]
    hint = "give the model that this one was made from"
    if output not in there:
        raise UsageError(f"the teacher has no output {output!r} but {', '.join(there)}", hint=hint)
    reads = {spec.name for spec in input_specs(student.graph)}
    more = [spec.name for spec in input_specs(teacher.graph) if spec.name not in reads]
    if more:
        raise UsageError(f"the teacher reads {more[0]!r}, which the model does not", hint=hint)
    return output


def _about(student: ir.Model, teacher: ir.Model | None, dataset: Examples, options: Finetune) -> dict[str, str]:
    """What must be the same for a run to be the same."""
    return {
        "options": repr(replace(options, device="cpu")),
        "model": fingerprint(student),
        "teacher": fingerprint(teacher) if teacher is not None else "",
        "data": dataset.fingerprint,
    }


def _trainer(student: ir.Model, teacher: ir.Model | None, dataset: Examples, options: Finetune, metric: str) -> Trainer:
    loss = Loss.of(options, options.output, labelled=dataset.labelled, teacher=teacher is not None)
    states: Sequence[str] = shared_states(student, teacher) if teacher is not None and loss.hidden else ()
    outputs = [options.output, *states]
    pupil = Network(with_states(student, states), outputs, options.device)
    if teacher is None or not (loss.distill or loss.hidden or metric != "accuracy"):
        return Trainer(pupil, None, dataset, loss, metric, options)
    expert = Network(with_states(teacher, states), outputs, options.device)
    _agree(pupil, expert, dataset, states)
    return Trainer(pupil, expert, dataset, loss, metric, options)


def _agree(student: Network, teacher: Network, dataset: Examples, states: Sequence[str]) -> None:
    """Leave out hidden states of other shapes, or without variance to measure by.

    Raises:
        UsageError: the trained outputs are of different shapes.
    """
    import torch

    with torch.no_grad():
        feeds = next(iter(dataset.held_out())).feeds
        student_outputs, teacher_outputs = student(feeds), teacher(feeds)
    if student_outputs[0].shape != teacher_outputs[0].shape:
        shapes = f"{list(student_outputs[0].shape)}, not {list(teacher_outputs[0].shape)}"
        raise UsageError(f"the output is {shapes} as the teacher's", hint="give the model that this one was made from")
    alike = []
    for k, (s, t) in enumerate(zip(student_outputs[1:], teacher_outputs[1:], strict=True)):
        if s.shape == t.shape and 0 < float(t.float().var()) < float("inf"):
            alike.append(states[k])
    for network in (student, teacher):
        network.outputs = [network.outputs[0], *alike]


def _evaluated(
    student: ir.Model, teacher: ir.Model | None, tuned: ir.Model, dataset: Examples, output: str
) -> Evaluation | None:
    """The original, the given and the tuned model side by side on labelled validation data."""
    if teacher is None or not dataset.labelled:
        return None
    models = {"original": teacher, "slim": student, "tuned": tuned}
    return evaluate_models(models, dataset.held_out_inputs(), "accuracy", output=output)


def _judged(
    model: ir.Model,
    teacher: ir.Model | None,
    dataset: Examples,
    output: str,
    metric: str,
    batches: int | None = None,
) -> float:
    """The metric on the validation data, or on their first batches, run by ONNX Runtime."""
    tally = Tally(metric)
    try:
        with open_session(widened(model)) as session, open_session(widened(teacher or model)) as other:
            for k, batch in enumerate(islice(dataset.held_out(), batches)):
                feeds = widened_feeds(batch.feeds)
                student_output = run(session, feeds, [output])[0]
                teacher_output = (
                    run(other, feeds, [output])[0] if metric != "accuracy" or k == 0 else None
                )  # once: does it run?
                tally.update(batch, student_output, teacher_output if metric != "accuracy" else None)
    except CannotRun as error:
        raise PruneGraphError(
            f"ONNX Runtime does not run the model on the data: {error}",
            hint="check the data, or give inputs that the model accepts",
        ) from error
    return tally.value
