"""Repair on real text: half and three quarters of a fine-tuned encoder gone, without training, on two tasks.

    python -m benchmarks.repair

The dense models are those of benchmarks/movie.py. Every selection is made and repaired on 512 sentences of the training
split, without labels. The table counts right answers on the test split, slim against dense sentence by sentence; with
--split validation it is the one that defaults were chosen by.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness import Record, Records, Section, study_parser
from benchmarks.judge import Bools, interval, right
from benchmarks.movie import TASKS, Movie, movie
from prunegraph import Data, Graph, PruneResult, Selection, analyze
from prunegraph.observe.attention_similarity import attention_similarity
from prunegraph.passes.score import resolve_scorers
from prunegraph.request import with_seed

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


def selected(graph: Graph, plan: Mapping[str, float], scorer: Any, seed: int, data: Data) -> Selection:
    """What stays, by a scorer that sees the calibration sentences."""
    scorers = with_seed(resolve_scorers(scorer), seed)
    targets = graph.targets(dict(plan), scorers)
    return graph.select(graph.score(scorers, data, groups=targets.of_group, kept=targets.kept), targets)


@functools.lru_cache(1)
def opened(task: str, seed: int, split: str) -> tuple[Graph, Movie, Data, Bools]:
    """A dense model, analysed once, the sentences that judge, and which of them it classifies rightly."""
    files = movie(task, seed)
    graph, judging = analyze(files.model), files.data(split, batch_size=32)
    return graph, files, judging, right(graph.original, judging)


@functools.lru_cache(1)
def bare(task: str, seed: int, split: str, plan: str, scorer: str) -> PruneResult:
    """A slim model as it is before its repair."""
    graph, files, _, _ = opened(task, seed, split)
    return graph.apply(selected(graph, PLANS[plan], SCORERS[scorer], seed, files.unlabelled("train", SENTENCES)))


def measured(task: str, seed: int, split: str, plan: str, scorer: str, method: str) -> Record:
    """Which answers of one slim model are right, beside the dense one, and how its attention looks."""
    graph, files, judging, dense = opened(task, seed, split)
    result = bare(task, seed, split, plan, scorer)
    if method != "none":
        result = result.repair(files.unlabelled("train", SENTENCES), method)
    slim = right(result.ir_model, judging)
    points, half = interval(slim.astype(float) - dense)
    maps = files.unlabelled("validation", MAPS).inputs(graph.original)
    alike = attention_similarity((graph.normalized.model, graph.analysis), result.ir_model, result.selection, maps)
    outcomes = result.report.repair.outcomes if result.report.repair is not None else ()
    errors = [(outcome.before, outcome.after) for outcome in outcomes if outcome.errors]
    return {
        "task": task, "seed": seed, "plan": plan, "scorer": scorer, "repair": method,
        "dense": float(dense.mean()), "slim": float(slim.mean()), "points": 100 * points, "interval": 100 * half,
        "similarity": alike.mean, "n": len(dense), "methods": [outcome.method for outcome in outcomes],
        "errors": [float(np.mean(side)) for side in zip(*errors, strict=True)],
    }  # fmt: skip


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
    parser.add_argument("--no-run", action="store_true", help="show what was measured before")
    given = parser.parse_args()
    records = Records(given.results)
    every = []
    for case in itertools.product(given.task, [given.seed], [given.split], given.plan, given.scorer, given.repair):
        record = records.recall(str(case))
        if record is None and not given.no_run:
            record = records.keep(str(case), measured(*case))
        every += [record] if record is not None else []
    lines = [line for section in sections(every) for line in section.lines()]
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
