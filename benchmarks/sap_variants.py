"""Which reading of SAP keeps a text encoder useful: the measurement behind its defaults.

    python -m benchmarks.sap_variants model.onnx tokenizer-folder

The encoder is frozen; a ridge probe on its mean-pooled output learns two tasks from movie reviews (positive or
negative, and five classes), heads are closed by the head gate, and accuracy is taken on validation sentences that
neither the probe nor SAP has seen.  No labels reach SAP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.datasets import Review, reviews
from benchmarks.harness import Section, study_parser
from benchmarks.judge import Keep, MaskedModel, Ranking
from prunegraph.observe.stream import Data, Inputs, observe
from prunegraph.passes.score import Sap
from prunegraph.passes.score.sap import OBSERVATION

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
    model = Probed(arguments.model, arguments.tokenizer, train, validation)
    dense = model.accuracies({})
    rows = [("(none removed)", *(f"{dense[task]:.1%}" for task in CUTS for _ in RATIOS))]
    for name, ranking in model.rankings(train[: arguments.observed]).items():
        results = [model.accuracies(model.best(ranking, ratio)) for ratio in RATIOS]
        rows.append((name, *(f"{result[task]:.1%}" for task in CUTS for result in results)))
        Console(stderr=True).print(f"{name}: done")
    header = ("heads ranked by", *(f"{task}, {ratio:.0%}" for task in CUTS for ratio in RATIOS))
    Section("Validation accuracy, heads removed", header, rows).show()


class Probed(MaskedModel):
    """The frozen encoder, its probes and its validation sentences."""

    def __init__(self, model: Path, tokenizer: Path, train: Sequence[Review], validation: Sequence[Review]) -> None:
        """Learn the probes on the whole encoder."""
        super().__init__(model)
        self.tokenizer, self.validation = tokenizer, validation
        x, order = self.embedded(train, {})
        self.probes = {task: ridge(x, classes(train, cuts)[order], len(cuts) + 1) for task, cuts in CUTS.items()}

    def inputs(self, of: Sequence[Review]) -> Inputs:
        """Sentences, numbered by their labels."""
        rows = [{"text": review.text, "label": k} for k, review in enumerate(of)]
        return Data(rows, self.tokenizer).inputs(self.analyzed.original)

    def embedded(self, of: Sequence[Review], keep: Keep) -> tuple[Floats, npt.NDArray[Any]]:
        """Mean-pooled output of the encoder without some heads, and which sentence every row is."""
        rows, order = [], []
        for batch, states in self.outputs(keep, self.inputs(of).batches()):
            assert batch.mask is not None
            weight = batch.mask[..., None]
            rows.append((states * weight).sum(axis=1) / weight.sum(axis=1))
            order += [sample.label for sample in batch.samples]
        return np.concatenate(rows).astype(np.float64), np.array(order)

    def accuracies(self, keep: Keep) -> dict[str, float]:
        """Accuracy of every probe without some heads."""
        x, order = self.embedded(self.validation, keep)
        return {
            task: float(np.mean((with_one(x) @ self.probes[task]).argmax(1) == classes(self.validation, cuts)[order]))
            for task, cuts in CUTS.items()
        }

    def rankings(self, of: Sequence[Review]) -> dict[str, Ranking]:
        """Baselines, and every variant from one pass."""
        inputs = self.inputs(of)
        relations = Sap().observes(self.heads, self.context, inputs)[OBSERVATION]
        observe(self.context.model, inputs, [relations])
        rankings = {f"random, seed {seed}": self.ranked("random", seed) for seed in range(3)}
        rankings["magnitude"] = self.ranked("magnitude")
        by_sap = {f"sap: {name}": self.ranked_by_sap(relations, Sap(**settings)) for name, settings in VARIANTS.items()}
        return rankings | by_sap


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
