"""Evaluate models side by side on examples: accuracy, macro-F1, agreement, cosine, Spearman, perplexity, or a function.

Every model sees the same batches.  What is kept of an example is a few numbers, or one vector for embeddings; intervals
are those of the paired bootstrap over examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.arrays import Array, Floats
from prunegraph.errors import UsageError
from prunegraph.observe.metric import cosines, rows_of, token_ids, token_losses
from prunegraph.observe.run_batches import run_batches
from prunegraph.observe.stream import Inputs, SampleProgress
from prunegraph.observe.text import Batch
from prunegraph.runtime.widen import widened

Judge = Callable[[Array, "npt.NDArray[np.int64] | None"], float]
"""A metric of the caller's: outputs `[examples, ...]` and labels `[examples]` (None without) to one number."""

LABELLED = ("accuracy", "macro-f1", "top5")
RELATIVE = ("agreement", "cosine", "spearman")
METRICS = (*LABELLED, *RELATIVE, "perplexity")
"""In the place of the 5 of top5 may stand any number."""

PAIRS = 5_000
"""Pairs of examples whose similarities are ranked, at most."""

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Score:
    """What one model reaches.

    Attributes:
        model: Its name.
        value: The metric, in the metric's unit: a fraction, a cosine, a correlation, a perplexity.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end of it.
        change: Difference to the first model; None for the first.
        change_low: Lower end of the paired 95 % interval of the difference.
        change_high: Upper end of it.
    """

    model: str
    value: float
    low: float
    high: float
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Models side by side on the same examples.

    Attributes:
        metric: Its name.
        examples: How many examples were seen.
        scores: One a model, in the order given.
    """

    metric: str
    examples: int
    scores: tuple[Score, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `prunegraph evaluate --json` prints."""
        return {"metric": self.metric, "examples": self.examples, "models": [asdict(score) for score in self.scores]}


def evaluate_models(
    models: Mapping[str, ir.Model],
    inputs: Inputs,
    metric: str = "auto",
    *,
    output: str = "",
    seed: int = 0,
    progress: SampleProgress | None = None,
) -> Evaluation:
    """Run the same examples through every model and compare.

    Args:
        models: By name; the first is what the others are compared with.
        inputs: Examples that fit all of them.
        metric: One of `METRICS`, or `module:function` (a `Judge`); "auto" is accuracy where the data have labels, else
            agreement of the argmax with the first model.
        output: Which output is judged; the first if empty.
        seed: Of the bootstrap.
        progress: Called with the number of examples seen, over all models.

    Raises:
        UsageError: there is no such metric or output, labels or a second model are missing.
        PruneGraphError: ONNX Runtime does not run a model on the data.
    """
    name = _resolve(metric, inputs, len(models))
    judge = _load_judge(name) if ":" in name else None
    rows_by_model: list[Array] = []
    labels: list[int | None] = []
    done = 0
    for position, (title, model) in enumerate(models.items()):
        rows = []
        for batch, values in _run(title, model, inputs, output):
            rows.append(_keep(name, values, batch, inputs))
            if not position:
                labels += [sample.label for sample in batch.samples]
            done += len(batch.samples)
            if progress is not None:
                progress(done)
        rows_by_model.append(np.concatenate(rows))
    _check(name, dict(zip(models, rows_by_model, strict=True)), labels)
    truth = None if any(label is None for label in labels) else np.array(labels, dtype=np.int64)
    return Evaluation(name, len(labels), tuple(_scores(name, judge, list(models), rows_by_model, truth, seed)))


def check_metric(metric: str) -> None:
    """Refuse the name of a metric that does not exist, before anything is measured.

    Raises:
        UsageError: there is no such metric.
    """
    if metric not in ("auto", *METRICS) and not _first_classes(metric) and ":" not in metric:
        raise UsageError(f"there is no metric {metric!r}", hint=f"choose {', '.join(METRICS)}, or module:function")


def _resolve(metric: str, inputs: Inputs, models: int) -> str:
    check_metric(metric)
    labelled = inputs.source.first().label is not None
    name = ("accuracy" if labelled else "agreement") if metric == "auto" else metric
    if _is_labelled(name) and not labelled:
        raise UsageError(f"{name} needs labels", hint="give data with a column of labels, or --metric agreement")
    if name in RELATIVE and models < 2:
        hint = "give the original first and what was made of it after it, or data with labels"
        raise UsageError(f"{name} compares with a first model, and there is only one", hint=hint)
    return name


def _first_classes(metric: str) -> int:
    """How many classes may hold the right one: 5 for "top5"; 0 for other metrics."""
    return int(metric.removeprefix("top")) if re.fullmatch(r"top[1-9]\d{0,5}", metric) else 0


def _is_labelled(metric: str) -> bool:
    """Whether a metric compares with the right classes."""
    return metric in LABELLED or _first_classes(metric) > 0


def _check(metric: str, rows_by_model: Mapping[str, Array], labels: Sequence[int | None]) -> None:
    """Refuse what cannot be compared row by row.

    Raises:
        UsageError: an example has no label, a model makes more or fewer rows than there are labels, or than the first.
    """
    first = next(iter(rows_by_model))
    for title, rows in rows_by_model.items():
        if _is_labelled(metric) and len(rows) != len(labels):
            message = f"{title} makes {len(rows)} rows of classes of {len(labels)} examples with a label each"
            hint = "name an output with one row for every example (--output NAME), or take --metric agreement"
            raise UsageError(message, hint=hint)
        if metric in RELATIVE and rows.shape != rows_by_model[first].shape:
            message = f"{title} makes {list(rows.shape)} where {first} makes {list(rows_by_model[first].shape)}"
            raise UsageError(message, hint="compare versions of one model, by one output (--output NAME)")
    if (
        _is_labelled(metric)
        and (missing := next((k for k, label in enumerate(labels) if label is None), None)) is not None
    ):
        raise UsageError(f"example {missing + 1} has no label", hint=f"label every example: {metric} counts them all")


def _load_judge(name: str) -> Judge:
    module, _, function = name.partition(":")
    try:
        judge: Judge = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        hint = "give MODULE:FUNCTION that Python can import from here: f(outputs, labels) -> number"
        raise UsageError(f"the metric {name!r} cannot be loaded: {error}", hint=hint) from error
    return judge


def _run(title: str, model: ir.Model, inputs: Inputs, output: str) -> Iterator[tuple[Batch, Array]]:
    outputs = [value.name or "" for value in model.graph.outputs]
    if output and output not in outputs:
        raise UsageError(f"{title} has no output {output!r}", hint=f"it has {', '.join(outputs)}")
    names, hint = [output or outputs[0]], "check that the data fit this model as they fit the first"
    batches = inputs.batches()
    for batch, arrays in run_batches(widened(model), batches, names, inputs.providers, title=title, hint=hint):
        yield batch, arrays[0]


def _keep(metric: str, values: Array, batch: Batch, inputs: Inputs) -> Array:
    """What the metric needs to know of every example of a batch, `[examples, ...]`."""
    if metric == "perplexity":
        return token_losses(values, batch, token_ids(batch, inputs.specs))
    rows = rows_of(values, batch) if ":" not in metric else values[: len(batch.samples)]
    if metric in ("accuracy", "macro-f1", "agreement"):
        return np.asarray(rows.argmax(axis=-1))
    if count := _first_classes(metric):
        return np.argsort(-rows, axis=-1, kind="stable")[:, :count]
    return np.asarray(rows)


def _scores(
    metric: str,
    judge: Judge | None,
    names: Sequence[str],
    rows_by_model: Sequence[Array],
    truth: Array | None,
    seed: int,
) -> Iterator[Score]:
    rng = np.random.default_rng(seed)
    per_example = [
        _per_example(metric, rows, rows_by_model[0], truth, np.random.default_rng(seed)) for rows in rows_by_model
    ]
    summarize = _summary(metric, judge, truth)
    everything = np.arange(len(per_example[0]))
    draws = [rng.choice(everything, len(everything)) for _ in range(RESAMPLES)] if judge is None else []
    drawn = [np.array([summarize(rows, draw) for draw in draws]) for rows in per_example]
    first = summarize(per_example[0], everything)
    for position, (name, rows) in enumerate(zip(names, per_example, strict=True)):
        value = summarize(rows, everything)
        low, high = np.quantile(drawn[position], (0.025, 0.975)) if draws else (value, value)
        if not position:
            yield Score(name, value, float(low), float(high))
            continue
        less, more = np.quantile(drawn[position] - drawn[0], (0.025, 0.975)) if draws else (np.nan, np.nan)
        bounds = (float(less), float(more)) if draws else (None, None)
        yield Score(name, value, float(low), float(high), value - first, *bounds)


def _per_example(metric: str, rows: Array, first: Array, truth: Array | None, rng: np.random.Generator) -> Array:
    """What is averaged, or summarized otherwise: one row for every example (or pair of examples)."""
    match metric:
        case "accuracy":
            return np.asarray(rows == truth, dtype=np.float64)
        case "agreement":
            return np.asarray(rows == first, dtype=np.float64)
        case "cosine":
            return cosines(rows, first)
        case "spearman":
            a, b = rng.integers(0, len(rows), (2, PAIRS))
            a, b = a[a != b], b[a != b]
            return np.stack([cosines(rows[a], rows[b]), cosines(first[a], first[b])], axis=1)
    if _first_classes(metric):
        assert truth is not None
        return np.asarray((rows == truth[:, None]).any(axis=1), dtype=np.float64)
    return rows


def _summary(metric: str, judge: Judge | None, truth: Array | None) -> Callable[[Array, Array], float]:
    """From rows and the positions of the examples that count to one number."""
    if judge is not None:
        return lambda rows, index: float(judge(rows[index], truth[index] if truth is not None else None))
    if metric == "perplexity":
        return lambda rows, index: float(np.exp(rows[index, 0].sum() / rows[index, 1].sum()))
    if metric == "macro-f1":
        assert truth is not None
        return lambda rows, index: macro_f1(rows[index], truth[index])
    if metric == "spearman":
        return lambda rows, index: float(np.corrcoef(_ranks(rows[index, 0]), _ranks(rows[index, 1]))[0, 1])
    return lambda rows, index: float(np.mean(rows[index]))


def macro_f1(predicted: Array, truth: Array) -> float:
    """The unweighted mean of the F1 of every class that occurs in the truth or in the predictions.

    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    0.7333333333333334
    """
    both = []
    for label in np.union1d(predicted, truth):
        hits = np.sum((predicted == label) & (truth == label))
        both.append(2 * hits / (np.sum(predicted == label) + np.sum(truth == label)))
    return float(np.mean(both))


def _ranks(values: Array) -> Floats:
    """Ranks from 0, ties by their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])
