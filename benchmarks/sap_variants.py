"""Which reading of SAP keeps a text encoder useful: the measurement behind its defaults.

    python -m benchmarks.sap_variants model.onnx tokenizer-folder

The encoder is frozen; a ridge probe on its mean-pooled output learns two tasks from movie reviews (positive or
negative, and five classes), heads are closed by the head gate, and accuracy is taken on validation sentences that
neither the probe nor SAP has seen.  No labels reach SAP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.datasets import Review, reviews
from benchmarks.harness import Section, study_parser
from prunegraph.analysis.groups import Group
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.observe.head_mask import HeadMaskSession, head_mask_of, with_head_mask
from prunegraph.observe.stream import Data, Inputs, observe
from prunegraph.passes.choose.rank import global_counts, select
from prunegraph.passes.score import Context, Sap, score_with
from prunegraph.passes.score.base import Scores
from prunegraph.passes.score.sap import OBSERVATION, RESULT, result
from prunegraph.runtime.session import open_session
from prunegraph.runtime.widen import widened

Floats = npt.NDArray[np.float64]

CUTS = {"two classes": (0.0,), "five classes": (-2.4, -0.8, 0.8, 2.4)}
RATIOS = (0.25, 0.5, 0.75)
VARIANTS: dict[str, dict[str, Any]] = {
    "top": {},
    "top, k=3": {"k": 3},
    "top, k=7": {"k": 7},
    "top, flat weights": {"weights": "flat"},
    "top, threshold by head": {"scope": "head"},
    "top, threshold by layer": {"scope": "layer"},
    "top, threshold 1/n": {"threshold": "literal"},
    "rest": {"rules": "rest"},
    "both (the paper's text)": {"rules": "both"},
    "both, flat weights": {"rules": "both", "weights": "flat"},
    "both, threshold 1/n (literal)": {"rules": "both", "threshold": "literal"},
}


def main() -> None:
    """Measure every variant at every ratio and print one table."""
    parser = study_parser("benchmarks.sap_variants", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--validation", type=int, default=400)
    parser.add_argument("--observed", type=int, default=400)
    arguments = parser.parse_args()
    drawn = [r for r in reviews() if abs(r.rating) >= 0.5]
    drawn = [drawn[k] for k in np.random.RandomState(0).permutation(len(drawn))]
    train, validation = drawn[: arguments.train], drawn[arguments.train :][: arguments.validation]
    found = load_and_analyze(arguments.model)
    bench = Bench(found, arguments.tokenizer, train, validation)
    scores = bench.scores(train[: arguments.observed])
    dense = bench.accuracies({})
    rows = [("(none removed)", *(f"{dense[task]:.1%}" for task in CUTS for _ in RATIOS))]
    for name, of in scores.items():
        results = [bench.accuracies(bench.closed(of, ratio)) for ratio in RATIOS]
        rows.append((name, *(f"{result[task]:.1%}" for task in CUTS for result in results)))
        Console(stderr=True).print(f"{name}: done")
    header = ("heads ranked by", *(f"{task}, {ratio:.0%}" for task in CUTS for ratio in RATIOS))
    Section("Validation accuracy, heads removed", header, rows).show()


class Bench:
    """The frozen encoder, its probes and its validation sentences."""

    def __init__(self, found: Analyzed, tokenizer: Path, train: Sequence[Review], validation: Sequence[Review]) -> None:
        """Learn the probes on the whole encoder."""
        self.found, self.tokenizer = found, tokenizer
        self.heads: list[Group] = [group for group in found.analysis.groups if group.kind == "head"]
        twin, self.sites = with_head_mask(widened(found.normalized.model), found.analysis)
        self._session = open_session(twin)
        self.session = self._session.__enter__()
        x, order = self.embedded(train, {})
        self.probes = {task: ridge(x, classes(train, cuts)[order], len(cuts) + 1) for task, cuts in CUTS.items()}
        self.validation = validation

    def inputs(self, of: Sequence[Review]) -> Inputs:
        """Sentences, numbered by their labels."""
        rows = [{"text": review.text, "label": k} for k, review in enumerate(of)]
        return Data(rows, self.tokenizer).inputs(self.found.original)

    def embedded(
        self, of: Sequence[Review], keep: Mapping[str, npt.NDArray[np.bool_]]
    ) -> tuple[Floats, npt.NDArray[Any]]:
        """Mean-pooled output of the encoder without some heads, and which sentence every row is."""
        session = HeadMaskSession(self.session, head_mask_of(self.sites, keep))
        rows, order = [], []
        for batch in self.inputs(of).batches():
            (states,) = session.run([session.get_outputs()[0].name], batch.feeds)
            assert batch.mask is not None
            weight = batch.mask[..., None]
            rows.append((states * weight).sum(axis=1) / weight.sum(axis=1))
            order += [sample.label for sample in batch.samples]
        return np.concatenate(rows).astype(np.float64), np.array(order)

    def accuracies(self, keep: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, float]:
        """Accuracy of every probe without some heads."""
        x, order = self.embedded(self.validation, keep)
        return {
            task: float(np.mean((with_one(x) @ self.probes[task]).argmax(1) == classes(self.validation, cuts)[order]))
            for task, cuts in CUTS.items()
        }

    def scores(self, of: Sequence[Review]) -> dict[str, dict[str, Scores]]:
        """Baselines, and every variant from one pass."""
        context = Context(self.found.normalized.model, self.found.analysis)
        inputs = self.inputs(of)
        relations: Any = Sap().observes(self.heads, context, inputs)[OBSERVATION]
        observe(context.model, inputs, [relations])
        found = {}
        for seed in range(3):
            drawn = Context(context.model, context.analysis, seed)
            found[f"random, seed {seed}"] = score_with("random", self.heads, drawn)
        found["magnitude"] = score_with("magnitude", self.heads, context)
        for name, settings in VARIANTS.items():
            scorer = Sap(**settings)
            judged = Context(context.model, context.analysis, observations={RESULT: result(relations, scorer)})
            found[f"sap: {name}"] = score_with(scorer, self.heads, judged)
        return found

    def closed(self, scores: Mapping[str, Scores], ratio: float) -> Mapping[str, npt.NDArray[np.bool_]]:
        """What stays when all heads are ranked together."""
        keep = global_counts(self.heads, scores, lambda group: ratio)
        return select(self.heads, scores, keep).keep


def classes(of: Sequence[Review], cuts: Sequence[float]) -> npt.NDArray[np.int64]:
    """The class of every rating."""
    return np.digitize([review.rating for review in of], cuts)


def with_one(x: Floats) -> Floats:
    """A column of ones beside."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def ridge(x: Floats, y: npt.NDArray[np.int64], count: int, strength: float = 1e-2) -> Floats:
    """A linear classifier by least squares."""
    a = with_one(x)
    gram = a.T @ a
    return np.linalg.solve(gram + strength * np.trace(gram) / len(gram) * np.eye(len(gram)), a.T @ np.eye(count)[y])


if __name__ == "__main__":
    main()
