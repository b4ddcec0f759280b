"""Metrics for head filtering: accuracy on labels, perplexity, or agreement with what the whole model says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.arrays import Array, Floats
from prunegraph.errors import UsageError
from prunegraph.observe.head_mask import HeadMaskSession
from prunegraph.observe.text import Batch, text_role
from prunegraph.runtime.inputs import InputSpec, input_specs
from prunegraph.runtime.widen import widened_feeds

Evaluate = Callable[[HeadMaskSession], float]

METRICS = ("auto", "accuracy", "agreement", "cosine", "perplexity")


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over examples (or over tokens, where the output has a row for each), higher is better.

    Attributes:
        name: "accuracy", "agreement" (of argmax), "cosine", or "perplexity", of which it is the reciprocal.
        output: The output that is judged.
        batches: What to run.
        reference: By batch, what to compare with: labels, token ids, argmax or vectors of the whole model.
    """

    name: str
    output: str
    batches: tuple[Batch, ...]
    reference: tuple[Array, ...]

    def __call__(self, session: HeadMaskSession) -> float:
        """The metric of a session: every batch is run and compared with the reference."""
        total = count = 0.0
        for batch, expected in zip(self.batches, self.reference, strict=True):
            values = session.run([self.output], widened_feeds(batch.feeds))[0]
            if self.name == "perplexity":
                losses, tokens = token_losses(values, batch, expected).sum(axis=0)
                total, count = total - losses, count + tokens
                continue
            rows = rows_of(values, batch)
            each = cosines(rows, expected) if self.name == "cosine" else rows.argmax(axis=-1) == expected
            total += float(np.sum(each))
            count += len(rows)
        return float(np.exp(total / count)) if self.name == "perplexity" else total / count


def make_metric(
    name: str, batches: Sequence[Batch], model: ir.Model, analysis: Analysis, whole: HeadMaskSession, output: str = ""
) -> Metric:
    """The metric of this name, with what it compares with.

    "auto" is accuracy where the data have labels; else cosine for an output as wide as the residual stream (an
    embedding) and agreement of the argmax for any other.

    Args:
        name: One of `METRICS`.
        batches: Examples.
        model: The normalized model.
        analysis: Its analysis.
        whole: A session with no head masked, to learn what the whole model says.
        output: Which output is judged; the first if empty.

    Raises:
        UsageError: there is no such metric or output, or accuracy is asked for without labels.
    """
    outputs = [value.name or "" for value in model.graph.outputs]
    output = output or outputs[0]
    if name not in METRICS or output not in outputs:
        wrong, there = ("metric", METRICS) if name not in METRICS else ("output", outputs)
        raise UsageError(
            f"there is no {wrong} {name if wrong == 'metric' else output!r}", hint=f"choose {', '.join(there)}"
        )
    labelled = all(sample.label is not None for batch in batches for sample in batch.samples)
    if name == "auto":
        name = "accuracy" if labelled else "cosine" if is_embedding(output, analysis) else "agreement"
    if name == "accuracy":
        if not labelled:
            raise UsageError(
                "accuracy needs labels", hint="give data with a column of class numbers, or metric='agreement'"
            )
        return Metric(name, output, tuple(batches), tuple(np.array([s.label for s in b.samples]) for b in batches))
    if name == "perplexity":
        specs = input_specs(model.graph)
        return Metric(name, output, tuple(batches), tuple(token_ids(batch, specs) for batch in batches))
    reference = []
    for batch in batches:
        rows = rows_of(whole.run([output], widened_feeds(batch.feeds))[0], batch)
        reference.append(rows if name == "cosine" else rows.argmax(axis=-1))
    return Metric(name, output, tuple(batches), tuple(reference))


def is_embedding(output: str, analysis: Analysis) -> bool:
    """Whether an output is as wide as what an attention block reads."""
    axes = analysis.solution.facts.shapes.get(output, ())
    widths = {
        analysis.solution.facts.shapes[place.name][1 - place.axis][0]
        for group in analysis.groups
        if group.kind in ("head", "kv_group")
        for place in group.places
        if len(analysis.solution.facts.shapes[place.name]) == 2
    }
    return bool(axes) and axes[-1][0] in widths


def rows_of(array: Array, batch: Batch) -> Array:
    """`[examples, classes]`, or a row for every token that is no padding."""
    of_samples = array[: len(batch.samples)]
    if of_samples.ndim == 3 and batch.mask is not None and of_samples.shape[1] == batch.mask.shape[1]:
        return np.asarray(of_samples[batch.mask])
    return np.asarray(of_samples.reshape(-1, of_samples.shape[-1]))


def cosines(a: Array, b: Array) -> Array:
    """The cosine of every row of one with the same row of the other."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray(np.sum(a * b, axis=-1, dtype=np.float64) / np.maximum(length, 1e-12))


NO_NEXT_TOKEN = "the output has no row of logits for every token of the input"


def token_ids(batch: Batch, specs: Sequence[InputSpec]) -> Array:
    """The token ids of a batch for a model with these inputs, `[examples, tokens]`.

    Raises:
        UsageError: the model reads none.
    """
    names = (spec.name for spec in specs if text_role(spec) == "ids")
    ids = next((batch.feeds[name] for name in names if name in batch.feeds), None)
    if ids is None:
        raise UsageError(NO_NEXT_TOKEN, hint="perplexity is for decoders: token ids in, a row of logits a token out")
    return np.asarray(ids)


def token_losses(logits: Array, batch: Batch, ids: Array) -> Floats:
    """The next-token loss of every example, `[examples, 2]`: its sum in nats, and how many tokens it is of.

    Args:
        logits: What a decoder makes of the batch, `[examples, tokens, vocabulary]`.
        batch: Its mask says which tokens are padding.
        ids: The tokens themselves, `[examples, tokens]`.

    Raises:
        UsageError: there is no row of logits for every token.
    """
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise UsageError(NO_NEXT_TOKEN, hint="perplexity is for decoders: token ids in, a row of logits a token out")
    log_probabilities = log_softmax(logits[:, :-1].astype(np.float64))
    loss = -np.take_along_axis(log_probabilities, ids[:, 1:, None].astype(np.int64), axis=-1)[..., 0]
    real = np.ones(ids.shape, bool) if batch.mask is None else batch.mask
    counts = real[:, 1:] & real[:, :-1]
    rows = len(batch.samples)
    return np.stack([(loss * counts)[:rows].sum(axis=1), counts[:rows].sum(axis=1).astype(np.float64)], axis=1)


def log_softmax(logits: Array) -> Array:
    """The logarithms of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
