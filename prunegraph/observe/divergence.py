"""The harm of a cut: how far the outputs of a cut model are from those of the whole one, on unlabelled examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.arrays import Array, Floats
from prunegraph.observe.metric import cosines, is_embedding, log_softmax, rows_of
from prunegraph.observe.run_batches import run_batches
from prunegraph.observe.stream import Inputs
from prunegraph.observe.text import Batch
from prunegraph.runtime.widen import widened

ROWS = 8192
"""Rows of outputs (examples, or tokens) that are compared, at most: a vocabulary a token fills memory otherwise."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the whole model says in one output, as far as it is compared.

    Attributes:
        output: Its name.
        kind: "kl" (of the softmax over the last axis, in nats), "cosine" (1 - cosine) or "relative" (to a row's norm).
        rows: By batch, which rows count; all if None.
        whole: By batch, what the whole model says in these rows: log probabilities, or the outputs themselves.
    """

    output: str
    kind: str
    rows: list[npt.NDArray[np.intp] | None] = field(default_factory=list)
    whole: list[Array] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What cut models are compared with: examples, what the whole model says of them, and who runs them."""

    batches: tuple[Batch, ...]
    references: tuple[Reference, ...]
    providers: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The outputs that are compared."""
        return [reference.output for reference in self.references]


def outputs_of(model: ir.Model, analysis: Analysis, inputs: Inputs, seed: int = 0) -> Outputs:
    """Run the whole model, and keep what cut ones are compared with: every output that is a float.

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
    floats = [value for value in model.graph.outputs if value.dtype is None or value.dtype.is_floating_point()]
    names = [value.name or "" for value in floats or list(model.graph.outputs)]
    references = tuple(Reference(name, _kind(name, analysis)) for name in names)
    outputs = Outputs(tuple(inputs.batches()), references, inputs.providers)
    rng = np.random.default_rng(seed)
    share = max(1, ROWS // max(1, len(outputs.batches)))
    for each in _run(model, outputs):
        for reference, values in zip(outputs.references, each, strict=True):
            count = len(values)
            rows = None if count <= share else np.sort(rng.choice(count, share, replace=False))
            reference.rows.append(rows)
            reference.whole.append(_compared(reference.kind, values, rows))
    return outputs


def divergence(model: ir.Model, outputs: Outputs) -> float:
    """How far a model is from the whole one: the mean over rows, and over outputs; NaN counts as infinitely far.

    Raises:
        PruneGraphError: ONNX Runtime does not run the model on the data.
    """
    return divergence_of(_run(model, outputs), outputs)


def divergence_of(runs: Iterable[list[Array]], outputs: Outputs) -> float:
    """The same of outputs that are there already: by batch the rows of every output that is compared."""
    totals, counts = np.zeros(len(outputs.references)), np.zeros(len(outputs.references))
    for batch, each in enumerate(runs):
        for k, (reference, values) in enumerate(zip(outputs.references, each, strict=True)):
            cut = _compared(reference.kind, values, reference.rows[batch])
            distances = _distance(reference.kind, reference.whole[batch], cut)
            totals[k] += distances.sum()
            counts[k] += len(distances)
    mean = float(np.mean(totals / np.maximum(counts, 1)))
    return mean if np.isfinite(mean) else float("inf")


def _kind(output: str, analysis: Analysis) -> str:
    shape = analysis.solution.facts.shapes.get(output, ())
    if is_embedding(output, analysis):
        return "cosine"
    spread = len(shape) > 1 and len(set(shape[-1])) == 1 and shape[-1][0] > 1
    return "kl" if spread and len(shape) < 4 else "relative"


def _run(model: ir.Model, outputs: Outputs) -> Iterator[list[Array]]:
    """By batch the rows of every output."""
    for batch, arrays in run_batches(widened(model), outputs.batches, outputs.names, outputs.providers):
        yield [rows_of(array, batch) for array in arrays]


def _compared(kind: str, values: Array, rows: npt.NDArray[np.intp] | None) -> Array:
    chosen = values if rows is None else values[rows]
    return log_softmax(chosen.astype(np.float64)).astype(np.float32) if kind == "kl" else np.asarray(chosen)


def _distance(kind: str, whole: Array, cut: Array) -> Floats:
    if kind == "kl":
        p, q = whole.astype(np.float64), cut.astype(np.float64)
        return np.asarray(np.sum(np.exp(p) * (p - q), axis=-1))
    if kind == "cosine":
        return 1 - cosines(whole, cut)
    lengths = np.linalg.norm(whole.astype(np.float64), axis=-1)
    return np.asarray(np.linalg.norm((whole - cut).astype(np.float64), axis=-1) / np.maximum(lengths, 1e-12))
