"""Repair on real text: half and three quarters of a fine-tuned encoder gone, without training, on two tasks.

    python -m benchmarks.repair [--task binary] [--seed 0 1 2] [--split validation] [--markdown docs/repair.md]

The dense models are those of benchmarks/movie.py. Every selection is made and repaired on 512 sentences of the training
split, without labels. The tables say what is right on the test split, slim against dense sentence by sentence; with
--split validation they are those that defaults were chosen by.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import prunegraph as pg
from benchmarks.accuracy_page import Case, Recall, lost
from benchmarks.accuracy_study import Arm, Dense, Study, record
from benchmarks.harness import Records, Section, publish, study_parser
from benchmarks.judge import right
from benchmarks.movie import TASKS, movie
from prunegraph.observe.attention_similarity import attention_similarity
from prunegraph.passes.score import resolve_scorers
from prunegraph.request import with_seed

PLANS = {
    "half of heads and FFN": pg.Amount(ratio={"head": 0.5, "ffn": 0.5}),
    "three quarters of heads": pg.Amount(ratio={"head": 0.75}),
}
GOALS = {("half of heads and FFN", "binary"): 1.0, ("half of heads and FFN", "five"): 2.0}
GOALS |= {("three quarters of heads", "binary"): 2.0, ("three quarters of heads", "five"): 2.5}
"""How many points may be lost."""
SCORERS = {
    "random": "random",
    "magnitude": "magnitude",
    "activation": "activation",
    "michel + activation": {"head": "michel", "ffn": "activation"},
}
REPAIRS = ("none", "bias", "lstsq", "auto")
SENTENCES = 512
MAPS = 64
"""Validation sentences that attention maps are compared on."""


def main() -> None:
    """Measure what was not measured before, and print or write the tables."""
    parser = study_parser("benchmarks.repair", __doc__, page=True)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scorer", nargs="+", choices=SCORERS, default=list(SCORERS))
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--results", type=Path, default=Path("build/repair.jsonl"), help="one line a slim model")
    parser.add_argument("--no-run", action="store_true", help="show what was measured before")
    options = parser.parse_args()
    records = Records(options.results)
    if not options.no_run:
        for task, seed in itertools.product(options.task, options.seed):
            measure(records, task, seed, options.split, list(itertools.product(options.plan, options.scorer)))
    publish("repair", sections(records.recall, options.split), options.markdown)


def measure(records: Records, task: str, seed: int, split: str, cells: list[tuple[str, str]]) -> None:
    """Cut, repair and judge whatever of the cells of one dense model is missing."""
    last = {cell: str(Case(task, seed, split, *cell, REPAIRS[-1])) for cell in cells}
    todo = [cell for cell in cells if records.recall(last[cell]) is None]
    if not todo:
        return
    files = movie(task, seed)
    splits = (files.data(each, batch_size=32) for each in ("validation", "test"))
    on = Dense(files.model, files.unlabelled("train", SENTENCES), *splits)
    judging = on.graph.inputs((on.test if split == "test" else on.validation).opened())
    maps = on.graph.inputs(files.unlabelled("validation", MAPS).opened())
    original, study = (on.graph.normalized.model, on.graph.analysis), Study(on)
    records.keep(str(Case(task, seed, split, "whole", "", "")), record(right(on.graph.original, judging)))
    for plan, scorer in todo:
        arm = Arm(scorer, False, with_seed(resolve_scorers(SCORERS[scorer]), seed), REPAIRS)
        for slim in study.slims(PLANS[plan], arm, verify=True):
            alike = attention_similarity(original, slim.model, slim.selection, maps).mean
            methods = dict(Counter(outcome.method for outcome in slim.outcomes))
            case, hits = Case(task, seed, split, plan, scorer, slim.way), right(slim.model, judging)
            records.keep(str(case), record(hits, similarity=alike, methods=methods, **slim.facts))
            print(f"{case}: {hits.mean():.1%}", file=sys.stderr, flush=True)


def sections(recall: Recall, split: str) -> Iterator[Section]:
    """One table a task and plan, over the seeds that were measured."""
    header = ("scorer", *REPAIRS, "auto, points lost", "attention, none and auto")
    for plan, task in itertools.product(PLANS, TASKS):
        rows, dense = [], 0.0
        for scorer in SCORERS:
            costs = {way: lost(recall, task, split, plan, scorer, way) for way in REPAIRS}
            if cost := costs["auto"]:
                dense = cost.dense
                alike = [_similarity(recall, task, split, plan, scorer, way) for way in ("none", "auto")]
                cells = (f"{100 * each.slim:.1f}" if each else "" for each in costs.values())
                rows.append((scorer, *cells, str(cost), " ".join(f"{value:.3f}" for value in alike)))
        if rows:
            note = f"dense {100 * dense:.1f} %; goal: at most {GOALS[plan, task]} points below"
            yield Section(f"{task}: {plan}", header, rows, note, level=3)


def _similarity(recall: Recall, *case: str) -> float:
    task, *rest = case
    results = (recall(str(Case(task, seed, *rest))) for seed in range(3))
    return float(np.mean([result["similarity"] for result in results if result is not None]))


if __name__ == "__main__":
    main()
