"""Accuracy without training: what rotation, selection and repair cost on real tasks, three dense models each.

    python -m benchmarks.accuracy [--markdown docs/accuracy.md]

Models that are not there are trained first (benchmarks.movie, benchmarks.fashion), unless `--trained` leaves them out.
Nothing reads a label but the judge, `taylor` and what trained the dense models. Results are kept in
`build/accuracy.jsonl`, so that a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import prunegraph as pg
from benchmarks import fashion, movie, rotate
from benchmarks.accuracy_page import Case, Cell, render
from benchmarks.accuracy_study import Arm, Dense, Study, record
from benchmarks.harness import Records, study_parser
from benchmarks.judge import right

RESULTS = Path("build/accuracy.jsonl")
TEXT, EVERY = ("binary", "five"), ("binary", "five", "fashion")
SEEDS = (0, 1, 2)
CALIBRATION, TEST_IMAGES = 512, 4000
INNER = ("qk_dim", "v_dim", "ffn")

CELLS = (
    Cell("half of the Q/K dims", pg.Amount(ratio={"qk_dim": 0.5}), EVERY, 0.3),
    Cell("half of the Q/K and V dims", pg.Amount(ratio={"qk_dim": 0.5, "v_dim": 0.5}), EVERY, 0.7),
    Cell("inner widths, 50 % fewer MACs", pg.Amount(macs=0.5, kinds=INNER), EVERY, 1.0),
    Cell("inner widths, 65 % fewer MACs", pg.Amount(macs=0.35, kinds=INNER), EVERY, 3.0),
    Cell("hidden, 288 of 384", pg.Amount(keep={"hidden": 288}), TEXT, 1.2),
    Cell("hidden, 192 of 384", pg.Amount(keep={"hidden": 192}), TEXT, 4.0),
    Cell("inner widths and hidden, 50 % fewer MACs", pg.Amount(macs=0.5, kinds=(*INNER, "hidden")), ("fashion",), 2.0),
)
"""What is cut, and how many points it may cost."""


SELECTED = {"qk_dim": "snp", "v_dim": "activation", "ffn": "activation", "hidden": "activation"}
ARMS = (
    Arm("as by default", None, "activation"),
    Arm("not rotated", False, SELECTED, ("once", "auto")),
    Arm("taylor, with labels", None, "taylor", labels=True),
    Arm("at once", None, "activation", ("once",)),
)
BY_DEFAULT, OTHERS, AT_ONCE = ARMS[0], ARMS[1:3], ARMS[3]

HALF = pg.Amount(macs=0.5, kinds=("head", "ffn"))
CHOICES = (
    Cell("scorer: half of the MACs of heads and FFN", HALF, TEXT),
    Cell("kinds: heads and FFN", HALF, TEXT),
    Cell("kinds: Q/K dims, V dims and FFN", pg.Amount(macs=0.5, kinds=INNER), TEXT),
    Cell("kinds: heads, Q/K dims and FFN", pg.Amount(macs=0.5, kinds=("head", "qk_dim", "ffn")), TEXT),
)
"""What defaults were chosen by, on validation data of the first dense model."""
SCORERS = tuple(
    Arm(name, None, name, ("none", "once"), name == "taylor") for name in ("activation", "magnitude", "obs", "taylor")
)
KINDS_ARM = Arm(BY_DEFAULT.name, None, BY_DEFAULT.scorer, ("once",))
SWEEPS, SWEEPS_ARM = (CELLS[2], CELLS[3]), Arm(BY_DEFAULT.name, None, BY_DEFAULT.scorer, ("once", "auto"))
"""What says on validation data of every dense model whether `auto` should try a sweep."""


def dense_path(task: str, seed: int) -> Path:
    """Where the model of a task lies, if it is there."""
    folder = fashion.FASHION if task == "fashion" else movie.CACHE / task
    return folder / f"seed{seed}" / "model.onnx"


def dense(task: str, seed: int) -> Dense:
    """The model, trained now if it is not there, and its data."""
    if task == "fashion":
        splits = (("train", CALIBRATION), ("validation", 1000), ("test", TEST_IMAGES))
        return Dense(fashion.trained(seed), *(pg.Data(fashion.rows(split, n), batch_size=64) for split, n in splits))
    files = movie.movie(task, seed)
    limits = ((files.train, CALIBRATION), (files.validation, None), (files.test, None))
    return Dense(files.model, *(pg.Data(path, files.tokenizer, limit=count) for path, count in limits))


@functools.lru_cache(maxsize=1)
def study_of(task: str, seed: int) -> Study:
    """One dense model, observed once for whatever follows in a row."""
    return Study(dense(task, seed))


def measure(task: str, seed: int, records: Records, cells: Sequence[tuple[Cell, Arm]], split: str) -> None:
    """Cut, repair and judge whatever of the cells of one dense model is missing."""
    todo = [
        (cell, arm)
        for cell, arm in cells
        if task in cell.tasks
        and any(records.recall(str(Case(task, seed, split, cell.name, arm.name, way))) is None for way in arm.repairs)
    ]
    if not todo:
        return
    study = study_of(task, seed)
    on = study.on
    inputs = on.graph.inputs((on.test if split == "test" else on.validation).opened())
    whole = str(Case(task, seed, split, "whole", "", ""))
    if records.recall(whole) is None:
        records.keep(whole, record(right(on.graph.original, inputs), macs=1.0))
    for cell, arm in todo:
        for slim in study.slims(cell.amount, arm, verify=seed == 0):
            case = Case(task, seed, split, cell.name, arm.name, slim.way)
            result = records.keep(str(case), record(right(slim.model, inputs), labels=arm.labels, **slim.facts))
            share = np.unpackbits(np.array(result["right"], np.uint8), count=result["count"]).mean()
            print(f"{case}: {share:.1%} {result.get('ways') or ''}", file=sys.stderr, flush=True)


def plan(arguments: argparse.Namespace) -> Iterator[tuple[str, int, list[tuple[Cell, Arm]], str]]:
    """Everything that is measured, the most telling first."""
    tasks, texts = arguments.tasks, [task for task in arguments.tasks if task in TEXT]
    for seed, task in itertools.product(SEEDS, tasks):
        yield task, seed, [(cell, SWEEPS_ARM) for cell in SWEEPS], "validation"
        yield task, seed, [(cell, BY_DEFAULT) for cell in CELLS], "test"
    for task in texts:
        cells = [(CHOICES[0], arm) for arm in SCORERS] + [(cell, KINDS_ARM) for cell in CHOICES[1:]]
        yield task, 0, cells, "validation"
    for arm, seed, task in itertools.product(OTHERS, SEEDS, tasks):
        yield task, seed, [(cell, arm) for cell in CELLS], "test"
    for seed, task in itertools.product(SEEDS, tasks):
        yield task, seed, [(cell, AT_ONCE) for cell in CELLS if cell.amount.kinds == INNER], "test"


def embedding() -> dict[str, Any]:
    """How near sentence embeddings stay with half of the Q/K dims; see benchmarks.rotate."""
    model, calibrate, test = rotate.prepared()
    graph = pg.analyze(model)
    inputs = test.opened().inputs(graph.original)
    (arm,) = (arm for arm in rotate.ARMS if arm.name == "Q/K: rotated by data")
    result = rotate.measure(model, arm, rotate.KEPT[0], calibrate, inputs, rotate.embeddings(graph.original, inputs))
    return {"cosine": result["cosine"], "calibration": rotate.CALIBRATE, "test": rotate.TEST}


def main() -> None:
    """Run the command line."""
    parser = study_parser("benchmarks.accuracy", __doc__)
    parser.add_argument("tasks", nargs="*", default=list(EVERY))
    parser.add_argument("--split", choices=("test", "validation"), help="only what is judged by this split")
    parser.add_argument("--trained", action="store_true", help="leave out dense models that are not there yet")
    parser.add_argument("--markdown", type=Path, help="write the page and its plot here")
    parser.add_argument("--no-run", action="store_true", help="show what was measured before")
    arguments = parser.parse_args()
    records = Records(RESULTS)
    for task, seed, cells, split in plan(arguments):
        if arguments.split not in (None, split):
            continue
        if not arguments.no_run and not (arguments.trained and not dense_path(task, seed).is_file()):
            measure(task, seed, records, cells, split)
    if not arguments.no_run and records.recall("embedding") is None:
        records.keep("embedding", embedding())
    if arguments.markdown:
        render(
            records.recall,
            arguments.markdown,
            calibration=CALIBRATION,
            cells=CELLS,
            arms=ARMS,
            sweeps=SWEEPS,
            choices=CHOICES,
            scorers=SCORERS,
        )


if __name__ == "__main__":
    main()
