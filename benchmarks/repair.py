"""Repair on real text: half and three quarters of a fine-tuned encoder gone, without training, on two tasks.

    python -m benchmarks.repair

The dense models are those of benchmarks/movie.py. Every selection is made and repaired on 512 sentences of the training
split, without labels. The table counts right answers on the test split, slim against dense sentence by sentence; with
--split validation it is the one that defaults were chosen by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from rich.console import Console

from benchmarks.harness import Record, Section, study_parser
from benchmarks.movie import TASKS, Movie, movie
from prunegraph import Graph, analyze
from prunegraph.analysis.selection import Selection
from prunegraph.observe.attention_similarity import attention_similarity
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.repair import Evidence, Outcome, evidence, rewritten, solved
from prunegraph.passes.score import resolve_scorers
from prunegraph.request import with_seed
from prunegraph.runtime.session import open_session, run

Bools = npt.NDArray[np.bool_]

PLANS: Mapping[str, Mapping[str, float]] = {
    "half of heads and FFN": {"head": 0.5, "ffn": 0.5},
    "three quarters of heads": {"head": 0.75},
}
GOALS = {("half of heads and FFN", "binary"): 1.0, ("half of heads and FFN", "five"): 2.0}
GOALS |= {("three quarters of heads", "binary"): 2.0, ("three quarters of heads", "five"): 2.5}
SCORERS: Mapping[str, Any] = {
    "random": "random",
    "magnitude": "magnitude",
    "activation": "activation",
    "michel + activation": {"head": "michel", "ffn": "activation"},
}
REPAIRS = ("none", "bias", "lstsq", "auto")
SENTENCES = 512
MAPS = 64
"""Validation sentences that attention maps are compared on."""


@dataclass(frozen=True, slots=True)
class Result:
    """One slim model: which answers are right, dense and slim, and how its attention looks."""

    task: str
    seed: int
    plan: str
    scorer: str
    repair: str
    dense: Bools
    slim: Bools
    similarity: float
    outcomes: tuple[Outcome, ...]

    @property
    def difference(self) -> tuple[float, float]:
        """Points gained over dense, and half of the 95 % interval of the paired difference."""
        each = self.slim.astype(float) - self.dense.astype(float)
        return 100 * float(each.mean()), 196 * float(each.std(ddof=1)) / len(each) ** 0.5

    def to_dict(self) -> dict[str, Any]:
        """For a file of results."""
        points, interval = self.difference
        errors = [(o.before, o.after) for o in self.outcomes if o.errors]
        return {
            "task": self.task, "seed": self.seed, "plan": self.plan, "scorer": self.scorer, "repair": self.repair,
            "dense": float(self.dense.mean()), "slim": float(self.slim.mean()), "points": points, "interval": interval,
            "similarity": self.similarity, "n": len(self.dense), "methods": [o.method for o in self.outcomes],
            "errors": [float(np.mean(side)) for side in zip(*errors, strict=True)] if errors else [],
        }  # fmt: skip


def unlabelled(path: Path, count: int) -> list[dict[str, str]]:
    """The first sentences of a file, and nothing but the sentences."""
    return [{"text": json.loads(line)["text"]} for line in path.read_text(encoding="utf-8").splitlines()[:count]]


def answers(model: ir.Model, inputs: Inputs) -> Bools:
    """Which sentences a model classifies rightly."""
    found: list[Bools] = []
    with open_session(model) as session:
        for batch in inputs.batches():
            labels = np.array([sample.label for sample in batch.samples])
            found.append(run(session, batch.feeds)[0].argmax(axis=-1) == labels)
    return np.concatenate(found)


def selected(graph: Graph, plan: Mapping[str, float], scorer: Any, seed: int, data: Data) -> Selection:
    """What stays, by a scorer that sees the calibration sentences."""
    scorers = with_seed(resolve_scorers(scorer), seed)
    targets = graph.targets(dict(plan), scorers)
    return graph.select(graph.score(scorers, data, groups=targets.of_group, kept=targets.kept), targets)


def results(
    task: str, seed: int, split: str, scorers: list[str], plans: list[str], methods: list[str]
) -> Iterator[Result]:
    """Everything of one dense model."""
    files: Movie = movie(task, seed)
    found = analyze(files.model)
    data = Data(unlabelled(files.train, SENTENCES), files.tokenizer).opened()
    inputs = data.inputs(found.original)
    judged = Data(getattr(files, split), files.tokenizer, batch_size=32).opened().inputs(found.original)
    dense = answers(found.original, judged)
    maps = Data(unlabelled(files.validation, MAPS), files.tokenizer).opened().inputs(found.original)
    for plan in plans:
        for scorer in scorers:
            selection = selected(found, PLANS[plan], SCORERS[scorer], seed, data)
            bare = found.apply(selection).ir_model
            keeps = selection.keeps(found.analysis.groups)
            model, analysis = found.normalized.model, found.analysis
            seen = [each for each in evidence(model, analysis, keeps, inputs) if isinstance(each, Evidence)]
            known: dict[tuple[str, ...], tuple[Bools, float]] = {}
            auto = [solved(each, "auto") for each in seen]
            for method in methods:
                best = auto
                if method in ("bias", "lstsq"):
                    best = [b if b[0].method == method else solved(e, method) for e, b in zip(seen, auto, strict=True)]
                elif method == "none":
                    best = []
                key = tuple(outcome.method for outcome, _ in best)
                if key not in known:  # `auto` may be what `lstsq` is
                    pairs = zip(seen, best, strict=False)
                    changes = [(each.task.sites, change) for each, (_, change) in pairs if change is not None]
                    slim = rewritten(model, analysis, keeps, changes)[0] if changes else bare
                    alike = attention_similarity((model, analysis), slim, selection, maps).mean
                    known[key] = answers(slim, judged), alike
                outcomes = tuple(outcome for outcome, _ in best)
                yield Result(task, seed, plan, scorer, method, dense, *known[key], outcomes)


def sections(every: list[Record]) -> Iterator[Section]:
    """One table a task and plan."""
    for task, plan in dict.fromkeys((row["task"], row["plan"]) for row in every):
        rows = [row for row in every if (row["task"], row["plan"]) == (task, plan)]
        dense = f"dense {100 * np.mean([row['dense'] for row in rows]):.1f} %"
        table = []
        for scorer in dict.fromkeys(row["scorer"] for row in rows):
            by = {row["repair"]: row for row in rows if row["scorer"] == scorer}
            cells = [f"{100 * by[method]['slim']:.1f}" if method in by else "" for method in REPAIRS]
            alike = " ".join(f"{by[method]['similarity']:.3f}" for method in ("none", "auto") if method in by)
            cells += [f"{by['auto']['points']:+.1f} ± {by['auto']['interval']:.1f}" if "auto" in by else "", alike]
            table.append((scorer, *cells))
        header = ("scorer", *REPAIRS, "auto against dense", "attention, none and auto")
        yield Section(f"{task}: {plan}", header, table, f"{dense}; goal: at most {GOALS[plan, task]} points below")


def show(every: list[Record]) -> None:
    """Print the tables, as Markdown."""
    lines = [line for section in sections(every) for line in section.lines()]
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Measure, and print or write the tables."""
    parser = study_parser("benchmarks.repair", __doc__)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scorer", nargs="+", choices=SCORERS, default=list(SCORERS))
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--repair", nargs="+", choices=REPAIRS, default=list(REPAIRS))
    parser.add_argument("--results", type=Path, default=Path("build/repair.jsonl"), help="one line a slim model")
    parser.add_argument(
        "--read", type=Path, nargs="+", help="measure nothing: make the tables of these files of results"
    )
    given = parser.parse_args()
    if given.read:
        found = [json.loads(line) for path in given.read for line in path.read_text(encoding="utf-8").splitlines()]
        show(found)
        return
    every = []
    with given.results.open("w", encoding="utf-8") as file:
        for task in given.task:
            for result in results(task, given.seed, given.split, given.scorer, given.plan, given.repair):
                every.append(result.to_dict())
                file.write(json.dumps(every[-1]) + "\n")
                file.flush()
    show(every)


if __name__ == "__main__":
    main()
