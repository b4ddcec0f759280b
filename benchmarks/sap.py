"""Which reading of SAP keeps a text model useful, and what a worse parser does: the measurement behind its defaults.

    python -m benchmarks.sap --task binary --seed 0
    python -m benchmarks.sap --encoder model.onnx tokenizer-folder --observed 400 --corruptions 0

Heads are ranked on training sentences without their labels, closed by the head gate, and judged on validation sentences
that SAP has not seen; nothing is trained afterwards.  A task is that of a fine-tuned movie-review model.  An encoder is
frozen: ridge probes on its mean-pooled output learn two tasks from the same reviews.  Differences from the default are
paired, sentence by sentence; intervals are 95 %, from the spread over sentences alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from scipy.stats import spearmanr

from benchmarks.datasets import Review, reviews
from benchmarks.harness import Section, study_parser
from benchmarks.judge import Bools, Keep, MaskedModel, Ranking, interval
from benchmarks.movie import TASKS, movie
from prunegraph.observe.stream import Data, Inputs, observe
from prunegraph.passes.score import Sap
from prunegraph.passes.score.sap import OBSERVATION

Floats = npt.NDArray[np.float64]

DEFAULT = "sap: top"
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
    "both, k=3": {"rules": "both", "k": 3},
    "both, k=7": {"rules": "both", "k": 7},
    "both, flat weights": {"rules": "both", "weights": "flat"},
    "both, threshold 1/n (literal)": {"rules": "both", "threshold": "literal"},
}
NOISES = (0.1, 0.3, 1.0)
CUTS = {"two classes": (0.0,), "five classes": (-2.4, -0.8, 0.8, 2.4)}
"""Ratings between the classes of the tasks of an encoder."""


class Subject(MaskedModel):
    """A model, the sentences that its heads are ranked on, and those that judge."""

    observed: Inputs

    def hits(self, keep: Keep) -> dict[str, Bools]:
        """By task, which validation sentences are right with these heads alone."""
        raise NotImplementedError


class FineTuned(Subject):
    """A fine-tuned movie-review model."""

    def __init__(self, task: str, seed: int, observed: int) -> None:
        files = movie(task, seed)
        super().__init__(files.model)
        self.task, original = task, self.analyzed.original
        self.observed = files.data("train", limit=observed).inputs(original)
        self.batches = list(files.data("validation", batch_size=64).inputs(original).batches())

    def hits(self, keep: Keep) -> dict[str, Bools]:
        """Right or not, of the task."""
        return {self.task: self.right(keep, self.batches)}


class Probed(Subject):
    """A frozen encoder with ridge probes that were learnt on all of its heads."""

    def __init__(
        self, model: Path, tokenizer: Path, train: Sequence[Review], validation: Sequence[Review], observed: int
    ):
        super().__init__(model)
        self.tokenizer, self.validation = tokenizer, validation
        self.observed = self.inputs(train[:observed])
        x, order = self.embedded(train, {})
        self.probes = {task: ridge(x, classes(train, cuts)[order], len(cuts) + 1) for task, cuts in CUTS.items()}

    def inputs(self, sentences: Sequence[Review]) -> Inputs:
        """Sentences, numbered by their labels."""
        rows = [{"text": review.text, "label": k} for k, review in enumerate(sentences)]
        return Data(rows, self.tokenizer).inputs(self.analyzed.original)

    def embedded(self, sentences: Sequence[Review], keep: Keep) -> tuple[Floats, npt.NDArray[Any]]:
        """Mean-pooled output of the encoder with these heads, and which sentence every row is."""
        rows, order = [], []
        for batch, states in self.outputs(keep, self.inputs(sentences).batches()):
            assert batch.mask is not None
            weight = batch.mask[..., None]
            rows.append((states * weight).sum(axis=1) / weight.sum(axis=1))
            order += [sample.label for sample in batch.samples]
        return np.concatenate(rows).astype(np.float64), np.array(order)

    def hits(self, keep: Keep) -> dict[str, Bools]:
        """Right or not by every probe."""
        x, order = self.embedded(self.validation, keep)
        logits = {task: with_one(x) @ probe for task, probe in self.probes.items()}
        return {task: logits[task].argmax(1) == classes(self.validation, cuts)[order] for task, cuts in CUTS.items()}


def main() -> None:
    """Measure every ranking at every ratio, and print two tables."""
    parser = study_parser("benchmarks.sap", __doc__)
    parser.add_argument("--task", choices=list(TASKS), default="binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", type=Path, nargs=2, metavar=("MODEL", "TOKENIZER"), help="in place of a task")
    parser.add_argument("--train", type=int, default=1500, help="sentences that probes of an encoder learn from")
    parser.add_argument("--validation", type=int, default=400, help="sentences that judge an encoder")
    parser.add_argument("--observed", type=int, default=512, help="training sentences that heads are ranked on")
    parser.add_argument("--ratios", type=float, nargs="+", default=(0.25, 0.5, 0.75))
    parser.add_argument("--draws", type=int, default=3, help="random rankings")
    parser.add_argument("--corruptions", type=int, default=3, help="rankings for every share of corrupted arcs")
    arguments = parser.parse_args()
    if arguments.encoder:
        clear = [review for review in reviews() if abs(review.rating) >= 0.5]
        drawn = [clear[k] for k in np.random.RandomState(0).permutation(len(clear))]
        train, validation = drawn[: arguments.train], drawn[arguments.train :][: arguments.validation]
        model: Subject = Probed(*arguments.encoder, train, validation, arguments.observed)
    else:
        model = FineTuned(arguments.task, arguments.seed, arguments.observed)
    whole, rankings = model.hits({}), rankings_of(model, arguments.draws, arguments.corruptions)
    hits = {}
    for name, ranking in rankings.items():
        Console(stderr=True).print(f"{name} …", style="dim")
        hits[name] = {ratio: model.hits(model.best(ranking, ratio)) for ratio in arguments.ratios}
    columns = [(task, ratio) for task in whole for ratio in arguments.ratios]
    rows = [("(none removed)", *(cell for task, _ in columns for cell in (share(whole[task]), "")))]
    for name in rankings:
        pairs = [(hits[name][ratio][task], hits[DEFAULT][ratio][task]) for task, ratio in columns]
        rows.append((name, *(cell for each, default in pairs for cell in (share(each), beside(each, default)))))
    header = [cell for task, ratio in columns for cell in (f"{task}, {ratio:.0%} removed", "beside the default")]
    title = f"Accuracy on {len(next(iter(whole.values())))} validation sentences"
    Section(title, ("heads ranked by", *header), rows).show()
    noise = {name: ranking for name, ranking in rankings.items() if name.startswith("noise")}
    if noise:
        default = rankings[DEFAULT]
        ranked = [
            (name, f"{correlation(model, ranking, default):.3f}", f"{overlap(model, ranking, default):.0%}")
            for name, ranking in noise.items()
        ]
        Section("Ranking beside that of the parse", ("arcs corrupted", "Spearman", "same half"), ranked).show()


def rankings_of(model: Subject, draws: int, corruptions: int) -> dict[str, Ranking]:
    """Every way to rank the heads, all statistics from one pass."""
    corrupted = [(noise, seed) for noise in NOISES for seed in range(corruptions)]
    relations = {
        (noise, seed): Sap(noise=noise, seed=seed).observes(model.heads, model.context, model.observed)[OBSERVATION]
        for noise, seed in [(0.0, 0), *corrupted]
    }
    observe(model.context.model, model.observed, list(relations.values()))
    parsed = relations[0.0, 0]
    by_rule = {f"sap: {name}": model.ranked_by_sap(parsed, Sap(**settings)) for name, settings in VARIANTS.items()}
    by_noise = {f"noise {n:.0%}, seed {seed}": model.ranked_by_sap(relations[n, seed], Sap()) for n, seed in corrupted}
    drawn = {f"random, seed {seed}": model.ranked("random", seed) for seed in range(draws)}
    return drawn | {"magnitude": model.ranked("magnitude")} | by_rule | by_noise


def correlation(model: Subject, a: Ranking, b: Ranking) -> float:
    """Spearman's rank correlation of the scores of all heads."""
    return float(spearmanr(*(np.concatenate([of[group.id] for group in model.heads]) for of in (a, b))).statistic)


def overlap(model: Subject, a: Ranking, b: Ranking) -> float:
    """Which share of the half that goes by one ranking goes by the other."""
    one, other = (model.best(ranking, 0.5) for ranking in (a, b))
    both = sum((~one[group.id] & ~other[group.id]).sum() for group in model.heads)
    return float(both / sum((~one[group.id]).sum() for group in model.heads))


def share(hits: Bools) -> str:
    """Accuracy with its interval."""
    mean, half = interval(hits.astype(float))
    return f"{mean:.1%} ±{half:.1%}"


def beside(hits: Bools, default: Bools) -> str:
    """By how many points one is right more often, on the same sentences, with its interval."""
    mean, half = interval(hits.astype(float) - default)
    return "" if hits is default else f"{100 * mean:+.1f} ±{100 * half:.1f}"


def classes(sentences: Sequence[Review], cuts: Sequence[float]) -> npt.NDArray[np.int64]:
    """The class of every rating."""
    return np.digitize([review.rating for review in sentences], cuts)


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
