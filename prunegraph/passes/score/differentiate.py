"""Gradients by whatever can compute them: a backward pass, or for head masks alone central differences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.arrays import Floats
from prunegraph.errors import MissingExtra, PruneGraphError, UsageError
from prunegraph.observe.cache import through_cache
from prunegraph.observe.gradients import Backward, GradientStatistic, Objective
from prunegraph.observe.head_mask import HeadMask, HeadMaskSession, no_head_masked, with_head_mask
from prunegraph.observe.stream import Inputs, SampleProgress
from prunegraph.observe.text import Batch
from prunegraph.passes.score.base import Context
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients
from prunegraph.runtime.session import open_session
from prunegraph.runtime.widen import widened, widened_feeds

Classes = npt.NDArray[np.int64]

logger = logging.getLogger(__name__)

HOW = "gradients"
"""The observation that says how gradients were computed."""

STEP = 1e-2
"""A head mask's step to either side: its square times the third derivative is lost, and float32 rounding over it."""


@dataclass(frozen=True, slots=True)
class Differentiated:
    """How gradients were computed.

    Attributes:
        method: "backward pass" or "finite differences".
        target: Of what the cross-entropy was taken.
        labelled: Whether labels of the data were read.
    """

    method: str
    target: str
    labelled: bool

    @property
    def line(self) -> str:
        """How gradients were computed, in words."""
        labels = "the labels of the data were read" if self.labelled else "no labels were read"
        return f"gradients by {self.method}, towards {self.target} ({labels})"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return {"gradients": self.method, "targets": self.target, "labels_read": self.labelled}


def differentiate(
    context: Context,
    inputs: Inputs,
    statistics: Sequence[GradientStatistic],
    backward: Backward | None,
    *,
    output: str = "",
    cache: Path | None = None,
    progress: SampleProgress | None = None,
) -> Differentiated:
    """Update statistics from gradients, all that want as many samples in one backward pass.

    Where there is no backward pass, or the model is not differentiable by it, head masks go by finite differences.

    Args:
        context: The model.
        inputs: The data.
        statistics: What is gathered.
        backward: What computes gradients; None if nothing can.
        output: The logits; the first output if empty.
        cache: See `observe`.
        progress: See `observe`.

    Raises:
        UsageError: the model has no logits, or labels do not fit them.
        MissingExtra: nothing computes the gradients that are wanted.
    """
    objective = Objective.of(context.model, context.analysis, inputs, output)
    head_gradients = [statistic for statistic in statistics if isinstance(statistic, HeadMaskGradients)]
    if backward is not None:
        try:
            _gather(statistics, backward, "backward pass", context, inputs, objective, cache, progress)
            return Differentiated("backward pass", objective.target, objective.labelled)
        except UsageError:
            raise
        except PruneGraphError as error:
            if len(head_gradients) < len(statistics):
                raise
            logger.warning("no backward pass, so finite differences, which are slower: %s", error.message)
    if len(head_gradients) < len(statistics):
        raise MissingExtra("torch", "torch")
    _gather(
        head_gradients,
        _Differences(context.analysis),
        "finite differences",
        context,
        inputs,
        objective,
        cache,
        progress,
    )
    return Differentiated("finite differences", objective.target, objective.labelled)


def _gather(
    statistics: Sequence[GradientStatistic],
    backward: Backward,
    method: str,
    context: Context,
    inputs: Inputs,
    objective: Objective,
    cache: Path | None,
    progress: SampleProgress | None,
) -> None:
    for samples in dict.fromkeys(statistic.samples for statistic in statistics):
        members = [statistic for statistic in statistics if statistic.samples == samples]
        part = inputs.first(samples)

        def gather(missing: Sequence[GradientStatistic], part: Inputs = part) -> None:
            backward(context.model, part, missing, objective, progress)

        basis = f"{part.fingerprint}|{part.batch_size}|{objective}|{method}"  # batches are sorted by length
        through_cache(members, gather, context.model, basis, cache)


@dataclass(frozen=True, slots=True)
class _Differences:
    """A `Backward` for head masks: two runs a head and batch, by ONNX Runtime on one session with a head mask."""

    analysis: Analysis

    def __call__(
        self,
        model: ir.Model,
        inputs: Inputs,
        statistics: Sequence[GradientStatistic],
        objective: Objective,
        progress: SampleProgress | None,
    ) -> None:
        head_gradients = [statistic for statistic in statistics if isinstance(statistic, HeadMaskGradients)]
        layers = {site.layer: site.heads for statistic in head_gradients for site in statistic.sites}
        twin, sites = with_head_mask(widened(model), self.analysis)
        count = 0
        with open_session(twin, providers=inputs.providers) as session:
            for batch in inputs.batches():
                whole = no_head_masked(sites)
                (logits,) = HeadMaskSession(session, whole).run([objective.output], widened_feeds(batch.feeds))
                classes, _ = objective.targets(batch, logits)

                def losses(head_mask: HeadMask, batch: Batch = batch, classes: Classes = classes) -> Floats:
                    (changed,) = HeadMaskSession(session, head_mask).run([objective.output], widened_feeds(batch.feeds))
                    return objective.losses(batch, changed, classes)

                slopes = {layer: _slopes(losses, whole, layer, heads) for layer, heads in layers.items()}
                for statistic in head_gradients:
                    statistic.take([slopes[site.layer] for site in statistic.sites])
                count += len(batch.samples)
                if progress is not None:
                    progress(count)


def _slopes(losses: Callable[[HeadMask], Floats], whole: HeadMask, layer: int, heads: int) -> Floats:
    """Central differences of every example's loss by the mask of a layer, `[examples, heads]`."""
    columns = []
    for head in range(heads):
        sides = []
        for step in (STEP, -STEP):
            head_mask = whole.copy()
            head_mask[layer, head] += step
            sides.append(losses(head_mask))
        columns.append((sides[0] - sides[1]) / (2 * STEP))
    return np.stack(columns, axis=1)
