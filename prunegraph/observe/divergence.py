"""The harm of a cut: how far the outputs of a cut model are from those of the whole one, on unlabelled examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.errors import PruneGraphError
from prunegraph.observe.metric import cosines, is_embedding, rows_of
from prunegraph.observe.stream import Inputs
from prunegraph.observe.text import Batch
from prunegraph.runtime.providers import CPU
from prunegraph.runtime.session import CannotRun, open_session, run, widened, widened_feeds

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

ROWS = 8192
"""Rows of outputs (examples, or tokens) that are compared, at most: a vocabulary a token fills memory otherwise."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the whole model says, as far as it is compared.

    Attributes:
        kind: "kl" (of the softmax over the last axis, in nats), "cosine" (1 - cosine) or "relative" (to a row's norm).
        output: The output that is compared.
        batches: The examples.
        rows: By batch, which rows count; all if None.
        whole: By batch, what the whole model says in these rows: log probabilities, or the outputs themselves.
    """

    kind: str
    output: str
    batches: tuple[Batch, ...]
    rows: tuple[npt.NDArray[np.intp] | None, ...]
    whole: tuple[Array, ...]


def outputs_of(model: ir.Model, analysis: Analysis, inputs: Inputs, seed: int = 0) -> Outputs:
    """Run the whole model, and keep what cut ones are compared with.

    Distributions are compared by KL divergence, embeddings (as wide as the residual stream) by their cosine, anything
    else by its relative error.

    Args:
        model: The normalized model.
        analysis: Its analysis.
        inputs: Examples; no label is read.
        seed: Which rows are drawn, where there are too many.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """
    output = model.graph.outputs[0].name or ""
    shape = analysis.solution.facts.shapes.get(output, ())
    spread = len(shape) > 1 and len(set(shape[-1])) == 1 and shape[-1][0] > 1
    kind = "cosine" if is_embedding(output, analysis) else "kl" if spread and len(shape) < 4 else "relative"
    batches = tuple(inputs.batches())
    rng = np.random.default_rng(seed)
    share = max(1, ROWS // max(1, len(batches)))
    rows: list[npt.NDArray[np.intp] | None] = []
    whole: list[Array] = []
    for values in _run(model, output, batches, inputs.providers):
        count = len(values)
        rows.append(None if count <= share else np.sort(rng.choice(count, share, replace=False)))
        whole.append(_compared(kind, values, rows[-1]))
    return Outputs(kind, output, batches, tuple(rows), tuple(whole))


def divergence(model: ir.Model, outputs: Outputs, providers: Sequence[str] = ()) -> float:
    """The mean over rows of how far a model is from the whole one: 0 where they agree, NaN counts as infinitely far.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """
    total = count = 0.0
    cut = _run(model, outputs.output, outputs.batches, providers)
    for rows, whole, values in zip(outputs.rows, outputs.whole, cut, strict=True):
        each = _distance(outputs.kind, whole, _compared(outputs.kind, values, rows))
        total += float(each.sum())
        count += len(each)
    mean = total / max(count, 1)
    return mean if np.isfinite(mean) else float("inf")


def _run(model: ir.Model, output: str, batches: Sequence[Batch], providers: Sequence[str]) -> Iterator[Array]:
    """By batch the rows of an output."""
    try:
        with open_session(widened(model), providers=providers or CPU) as session:
            for batch in batches:
                yield rows_of(run(session, widened_feeds(batch.feeds), [output])[0], batch)
    except CannotRun as error:
        message = f"ONNX Runtime does not run the model on the data: {error}"
        raise PruneGraphError(message, hint="check the data, or give others that the model accepts") from error


def _compared(kind: str, values: Array, rows: npt.NDArray[np.intp] | None) -> Array:
    chosen = values if rows is None else values[rows]
    return _log_softmax(chosen.astype(np.float64)).astype(np.float32) if kind == "kl" else np.asarray(chosen)


def _distance(kind: str, whole: Array, cut: Array) -> Floats:
    if kind == "kl":
        p, q = whole.astype(np.float64), cut.astype(np.float64)
        return np.asarray(np.sum(np.exp(p) * (p - q), axis=-1))
    if kind == "cosine":
        return 1 - cosines(whole, cut)
    lengths = np.linalg.norm(whole.astype(np.float64), axis=-1)
    return np.asarray(np.linalg.norm((whole - cut).astype(np.float64), axis=-1) / np.maximum(lengths, 1e-12))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
