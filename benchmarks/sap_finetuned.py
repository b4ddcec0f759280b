"""SAP on fine-tuned movie-review models: its rules beside random heads, and what a worse parser does.

    python -m benchmarks.sap_finetuned --task binary --seed 0

Heads are ranked on training sentences without their labels, closed by the head gate, and judged on the validation
sentences; nothing is trained afterwards and the test sentences are not read.  Differences from the default are paired,
sentence by sentence; intervals are 95 %, from the spread over sentences alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.harness import Section, study_parser
from benchmarks.judge import Bools, MaskedModel, Ranking, interval
from benchmarks.movie import TASKS, movie
from prunegraph.observe.stream import observe
from prunegraph.passes.score import Sap
from prunegraph.passes.score.sap import OBSERVATION

VARIANTS = [(rules, k) for rules in ("top", "both") for k in (3, 5, 7)] + [("rest", 5)]
DEFAULT = "sap: top, k=5"
NOISES = (0.1, 0.3, 1.0)


def main() -> None:
    """Measure one model and print two tables."""
    parser = study_parser("benchmarks.sap_finetuned", __doc__)
    parser.add_argument("--task", choices=list(TASKS), default="binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--observed", type=int, default=512, help="training sentences that heads are ranked on")
    parser.add_argument("--ratios", type=float, nargs="+", default=(0.25, 0.5, 0.75))
    parser.add_argument("--draws", type=int, default=3, help="random rankings")
    parser.add_argument("--corruptions", type=int, default=3, help="rankings for every share of corrupted arcs")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    model = Watched(arguments.task, arguments.seed, arguments.observed)
    whole = model.right({}, model.batches)
    rankings = model.rankings(arguments.draws, arguments.corruptions)
    ratios = arguments.ratios
    hits = {(name, ratio): model.hits(ranking, ratio) for name, ranking in rankings.items() for ratio in ratios}
    header = ["heads ranked by"]
    for ratio in ratios:
        header += [f"{ratio:.0%} removed", "beside the default"]
    rows = []
    for name in rankings:
        cells = [(share(hits[name, ratio]), beside(hits[name, ratio], hits[DEFAULT, ratio])) for ratio in ratios]
        rows.append((name, *(cell for pair in cells for cell in pair)))
    title = f"{arguments.task}, seed {arguments.seed}: accuracy on {len(whole)} validation sentences; whole: "
    Section(title + share(whole), header, rows).show()
    default = rankings[DEFAULT]
    ranked = {name: (model.correlation(of, default), model.overlap(of, default)) for name, of in rankings.items()}
    noise = [(name, f"{rho:.3f}", f"{half:.0%}") for name, (rho, half) in ranked.items() if name.startswith("noise")]
    Section("Ranking beside that of the parse", ("arcs corrupted", "Spearman", "same half"), noise).show()
    if arguments.json:
        figures = {
            f"{name}|{ratio}": [float(h.mean()), *gap(h, hits[DEFAULT, ratio])] for (name, ratio), h in hits.items()
        }
        arguments.json.write_text(json.dumps({"whole": float(whole.mean()), "hits": figures, "ranking": ranked}))


class Watched(MaskedModel):
    """One fine-tuned model, the sentences that heads are ranked on, and those that judge."""

    def __init__(self, task: str, seed: int, observed: int) -> None:
        """Open everything."""
        files = movie(task, seed)
        super().__init__(files.model)
        self.train = files.data("train", limit=observed).inputs(self.analyzed.original)
        self.batches = list(files.data("validation", batch_size=64).inputs(self.analyzed.original).batches())

    def hits(self, ranking: Ranking, ratio: float) -> Bools:
        """Which validation sentences are right without the heads that rank last."""
        return self.right(self.best(ranking, ratio), self.batches)

    def rankings(self, draws: int, corruptions: int) -> dict[str, Ranking]:
        """Every way to rank the heads, all statistics from one pass."""
        corrupted = {(0.0, 0)} | {(noise, seed) for noise in NOISES for seed in range(corruptions)}
        relations = {
            (noise, seed): Sap(noise=noise, seed=seed).observes(self.heads, self.context, self.train)[OBSERVATION]
            for noise, seed in sorted(corrupted)
        }
        observe(self.context.model, self.train, list(relations.values()))
        parsed = relations[0.0, 0]
        by_rule = {f"sap: {rules}, k={k}": self.ranked_by_sap(parsed, Sap(rules=rules, k=k)) for rules, k in VARIANTS}
        by_noise = {
            f"noise {noise:.0%}, seed {seed}": self.ranked_by_sap(relations[noise, seed], Sap())
            for noise in NOISES
            for seed in range(corruptions)
        }
        drawn = {f"random, seed {seed}": self.ranked("random", seed) for seed in range(draws)}
        return by_rule | by_noise | drawn | {"magnitude": self.ranked("magnitude")}

    def correlation(self, a: Ranking, b: Ranking) -> float:
        """Spearman's rank correlation of the scores of all heads."""
        return float(spearmanr(*(np.concatenate([of[group.id] for group in self.heads]) for of in (a, b))).statistic)

    def overlap(self, a: Ranking, b: Ranking) -> float:
        """Which share of the half that goes by one ranking goes by the other."""
        one, other = (self.best(ranking, 0.5) for ranking in (a, b))
        both = sum((~one[group.id] & ~other[group.id]).sum() for group in self.heads)
        return float(both / sum((~one[group.id]).sum() for group in self.heads))


def gap(a: Bools, b: Bools) -> tuple[float, float]:
    """By how much one is right more often, on the same sentences, and half of the 95 % interval of that."""
    return interval(a.astype(float) - b)


def share(hits: Bools) -> str:
    """Accuracy with its interval."""
    mean, half = interval(hits.astype(float))
    return f"{mean:.1%} ±{half:.1%}"


def beside(hits: Bools, default: Bools) -> str:
    """The paired difference in points, with its interval."""
    mean, half = gap(hits, default)
    return "" if hits is default else f"{100 * mean:+.1f} ±{100 * half:.1f}"


if __name__ == "__main__":
    main()
