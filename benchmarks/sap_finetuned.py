"""SAP on fine-tuned movie-review models: its rules beside random heads, and what a worse parser does.

    python -m benchmarks.sap_finetuned --task binary --seed 0

Heads are ranked on training sentences without their labels, closed by the head gate, and judged on the validation
sentences; nothing is trained afterwards and the test sentences are not read.  Differences from the default are paired,
sentence by sentence; intervals are 95 %, from the spread over sentences alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.harness import study_parser
from benchmarks.movie import TASKS, movie
from prunegraph.analysis.groups import Group
from prunegraph.analyzed import load_and_analyze
from prunegraph.observe.head_mask import HeadMaskSession, head_mask_of, with_head_mask
from prunegraph.observe.stream import Data, Inputs, observe
from prunegraph.passes.choose.rank import global_counts, select
from prunegraph.passes.score import Context, Sap, score_with
from prunegraph.passes.score.base import Scores
from prunegraph.passes.score.sap import OBSERVATION, RESULT, result
from prunegraph.runtime.session import open_session
from prunegraph.runtime.widen import widened

Ranking = Mapping[str, Scores]
Hits = npt.NDArray[np.bool_]

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
    bench = Bench(arguments.task, arguments.seed, arguments.observed)
    whole = bench.hits(None, 0)
    rankings = bench.rankings(arguments.draws, arguments.corruptions)
    ratios = arguments.ratios
    hits: dict[tuple[str, float], Hits] = {}
    for name, of in rankings.items():
        hits |= {(name, ratio): bench.hits(of, ratio) for ratio in ratios}
        said_so = ", ".join(f"{ratio:.0%} removed {said(hits[name, ratio])}" for ratio in ratios)
        Console(stderr=True).print(f"{name}: {said_so}")
    console = Console(width=150)
    title = f"{arguments.task}, seed {arguments.seed}: accuracy on {len(whole)} validation sentences; whole: "
    table = Table("heads ranked by", title=title + said(whole), title_justify="left")
    for ratio in ratios:
        table.add_column(f"{ratio:.0%} removed", justify="right")
        table.add_column("beside the default", justify="right")
    for name in rankings:
        cells = [(said(hits[name, ratio]), beside(hits[name, ratio], hits[DEFAULT, ratio])) for ratio in ratios]
        table.add_row(name, *(cell for pair in cells for cell in pair))
    console.print(table)
    noise = Table(
        "arcs corrupted", "Spearman", "same half", title="Ranking beside that of the parse", title_justify="left"
    )
    for name, of in rankings.items():
        if name.startswith("noise"):
            noise.add_row(
                name, f"{bench.correlation(of, rankings[DEFAULT]):.3f}", f"{bench.overlap(of, rankings[DEFAULT]):.0%}"
            )
    console.print(noise)
    if arguments.json:
        figures = {
            f"{name}|{ratio}": [float(h.mean()), *gap(h, hits[DEFAULT, ratio])] for (name, ratio), h in hits.items()
        }
        ranked = {
            name: [bench.correlation(of, rankings[DEFAULT]), bench.overlap(of, rankings[DEFAULT])]
            for name, of in rankings.items()
        }
        arguments.json.write_text(json.dumps({"whole": float(whole.mean()), "hits": figures, "ranking": ranked}))


class Bench:
    """One fine-tuned model with a head gate, and its sentences."""

    def __init__(self, task: str, seed: int, observed: int) -> None:
        """Open everything."""
        files = movie(task, seed)
        self.found = load_and_analyze(files.model)
        self.heads: list[Group] = [group for group in self.found.analysis.groups if group.kind == "head"]
        twin, self.sites = with_head_mask(widened(self.found.normalized.model), self.found.analysis)
        self._session = open_session(twin)
        self.session = self._session.__enter__()
        self.tokenizer = files.tokenizer
        self.train = self.inputs(_rows(files.train)[:observed], 16)
        self.batches = list(
            self.inputs(sorted(_rows(files.validation), key=lambda row: len(row["text"])), 64).batches()
        )

    def inputs(self, rows: Sequence[Mapping[str, Any]], batch: int) -> Inputs:
        """Sentences for the model."""
        return Data(rows, self.tokenizer, batch_size=batch).inputs(self.found.original)

    def hits(self, ranking: Ranking | None, ratio: float) -> Hits:
        """Which validation sentences are right without the heads that rank last."""
        keep = self.kept(ranking, ratio) if ranking is not None else {}
        session = HeadMaskSession(self.session, head_mask_of(self.sites, keep))
        right: list[bool] = []
        for batch in self.batches:
            (logits,) = session.run([session.get_outputs()[0].name], batch.feeds)
            labels = [sample.label for sample in batch.samples]
            right += (logits[: len(labels)].argmax(-1) == np.array(labels)).tolist()
        return np.array(right)

    def kept(self, ranking: Ranking, ratio: float) -> Mapping[str, npt.NDArray[np.bool_]]:
        """What stays when all heads are ranked together."""
        return select(self.heads, ranking, global_counts(self.heads, ranking, lambda group: ratio)).keep

    def rankings(self, draws: int, corruptions: int) -> dict[str, Ranking]:
        """Every way to rank the heads, all statistics from one pass."""
        plain = Context(self.found.normalized.model, self.found.analysis)
        asked = {(0.0, 0)} | {(noise, seed) for noise in NOISES for seed in range(corruptions)}
        seen: dict[tuple[float, int], Any] = {
            (noise, seed): Sap(noise=noise, seed=seed).observes(self.heads, plain, self.train)[OBSERVATION]
            for noise, seed in sorted(asked)
        }
        observe(plain.model, self.train, list(seen.values()))

        def sap(noise: float = 0.0, seed: int = 0, **settings: Any) -> Ranking:
            scorer = Sap(**settings)
            judged = {RESULT: result(seen[noise, seed], scorer)}
            return score_with(scorer, self.heads, Context(plain.model, plain.analysis, observations=judged))

        found = {f"sap: {rules}, k={k}": sap(rules=rules, k=k) for rules, k in VARIANTS}
        found |= {f"noise {n:.0%}, seed {seed}": sap(n, seed) for n in NOISES for seed in range(corruptions)}
        for seed in range(draws):
            drawn = Context(plain.model, plain.analysis, seed)
            found[f"random, seed {seed}"] = score_with("random", self.heads, drawn)
        return found | {"magnitude": score_with("magnitude", self.heads, plain)}

    def correlation(self, a: Ranking, b: Ranking) -> float:
        """Spearman's rank correlation of the scores of all heads."""
        return float(spearmanr(*(np.concatenate([of[group.id] for group in self.heads]) for of in (a, b))).statistic)

    def overlap(self, a: Ranking, b: Ranking) -> float:
        """Which share of the half that goes by one ranking goes by the other."""
        one, other = (self.kept(of, 0.5) for of in (a, b))
        none = np.ones(self.heads[0].units, dtype=bool)
        gone = [(~one.get(g.id, none), ~other.get(g.id, none)) for g in self.heads]
        return float(sum((x & y).sum() for x, y in gone) / sum(x.sum() for x, _ in gone))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def gap(a: Hits, b: Hits) -> tuple[float, float]:
    """By how much one is right more often, on the same sentences, and half of the 95 % interval of that."""
    each = a.astype(float) - b.astype(float)
    return float(each.mean()), float(1.96 * each.std(ddof=1) / np.sqrt(len(each)))


def said(hits: Hits) -> str:
    """Accuracy with its interval."""
    return f"{hits.mean():.1%} ±{1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits)):.1%}"


def beside(hits: Hits, default: Hits) -> str:
    """The paired difference in points, with its interval."""
    mean, half = gap(hits, default)
    return "" if hits is default else f"{100 * mean:+.1f} ±{100 * half:.1f}"


if __name__ == "__main__":
    main()
