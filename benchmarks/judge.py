"""What a model puts out, and what a classifier gets right: as it is, or with some heads closed by the head mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analyzed import load_and_analyze
from prunegraph.export.onnx_file import load
from prunegraph.observe.head_mask import HeadMaskSession, head_mask_of, with_head_mask
from prunegraph.observe.stream import Data, Inputs
from prunegraph.observe.text import Batch
from prunegraph.passes.choose.rank import global_counts, select
from prunegraph.passes.score import Context, Scorer, Scores, score_with
from prunegraph.passes.score.sap import RESULT, Sap, result
from prunegraph.runtime.feeds import Feeds, random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.trial_sizes import size_plans
from prunegraph.runtime.widen import widened

Bools = npt.NDArray[np.bool_]
Keep = Mapping[str, Bools]
Ranking = Mapping[str, Scores]


def right(model: Path | ir.Model, data: Data | Inputs) -> Bools:
    """Whether each example is classified rightly, run by ONNX Runtime; `mean()` is the accuracy."""
    loaded = model if isinstance(model, ir.Model) else load(model)
    inputs = data.inputs(loaded) if isinstance(data, Data) else data
    with open_session(loaded) as session:
        return _right(lambda batch: session.run(None, dict(batch.feeds))[0], inputs.batches())


def _right(logits: Callable[[Batch], Any], batches: Iterable[Batch]) -> Bools:
    """The rows of a batch beyond its samples fill it up."""
    return np.concatenate(
        [
            logits(batch)[: len(batch.samples)].argmax(axis=-1) == [sample.label for sample in batch.samples]
            for batch in batches
        ]
    )


def reference(model: ir.Model, sizes: Mapping[str, int]) -> tuple[Feeds, list[npt.NDArray[Any]]]:
    """Random inputs that ONNX Runtime accepts, and what it makes of them.

    Raises:
        CannotRun: It accepts none.
    """
    refusal, specs = CannotRun("no inputs"), input_specs(model.graph)
    for (plan,) in size_plans(specs, (sizes,)):
        feeds = random_feeds(specs, plan, seed=0)
        try:
            with open_session(model) as session:
                return feeds, run(session, feeds)
        except CannotRun as error:
            refusal = error
    raise refusal


def interval(difference: npt.NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The mean over examples, and half of its 95 % interval."""
    return float(difference.mean()), float(1.96 * difference.std(ddof=1) / np.sqrt(len(difference)))


class MaskedModel:
    """A model whose heads can be closed without a new session, and rankings of its heads."""

    def __init__(self, model: Path) -> None:
        """Analyse it, and open a session with the head mask as one more input."""
        self.analyzed = load_and_analyze(model)
        self.heads = [group for group in self.analyzed.analysis.groups if group.kind == "head"]
        self.context = Context(self.analyzed.normalized.model, self.analyzed.analysis)
        twin, self.sites = with_head_mask(widened(self.context.model), self.context.analysis)
        self._opened = open_session(twin)
        self.session = self._opened.__enter__()

    def outputs(self, keep: Keep, batches: Iterable[Batch]) -> Iterator[tuple[Batch, npt.NDArray[Any]]]:
        """The first output with these heads alone; groups that `keep` does not name stay whole."""
        session = HeadMaskSession(self.session, head_mask_of(self.sites, keep))
        name = session.get_outputs()[0].name
        for batch in batches:
            yield batch, session.run([name], batch.feeds)[0]

    def right(self, keep: Keep, batches: Iterable[Batch]) -> Bools:
        """Whether each example is classified rightly by these heads alone."""
        return _right(lambda batch: next(self.outputs(keep, [batch]))[1], batches)

    def best(self, ranking: Ranking, removed: float) -> dict[str, Bools]:
        """What stays when this share of all heads goes, ranked together, at least one a layer."""
        whole = {group.id: np.ones(group.shape, dtype=bool) for group in self.heads}
        return whole | dict(select(self.heads, ranking, global_counts(self.heads, ranking, lambda _: removed)).keep)

    def ranked(self, scorer: str | Scorer, seed: int = 0) -> Ranking:
        """Scores of a scorer that needs no data."""
        return score_with(scorer, self.heads, Context(self.context.model, self.context.analysis, seed))

    def ranked_by_sap(self, relations: Any, scorer: Sap) -> Ranking:
        """Scores by one reading of what one pass has observed."""
        context = Context(self.context.model, self.context.analysis, observations={RESULT: result(relations, scorer)})
        return score_with(scorer, self.heads, context)
