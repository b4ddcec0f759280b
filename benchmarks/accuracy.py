"""SNP against other scorers on real tasks: accuracy at equal widths, without training, repaired, and fine-tuned.

    python -m benchmarks.accuracy [fashion binary five] [--markdown docs/accuracy.md]

Every scorer prunes the same kinds by the same ratio, found so that the MACs fall to the target; only the choice of
units differs. Results are kept in `build/accuracy.jsonl`, so that a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks import fashion
from benchmarks.accuracy_page import Case, bits, render
from benchmarks.harness import Records, study_parser
from benchmarks.judge import right
from benchmarks.movie import FROZEN, movie
from prunegraph import Amount, Repair, prune_graph, scorers
from prunegraph.observe.stream import Data
from prunegraph.train.finetune import finetune

RESULTS = Path("build/accuracy.jsonl")
SCORERS = ("snp", "magnitude", "activation", "taylor", "random")
FEWER = (0.25, 0.5, 0.65)
WIDTHS = {"inner": ("qk_dim", "v_dim", "ffn"), "inner and hidden": ("qk_dim", "v_dim", "ffn", "hidden")}
"""What is pruned: the widths inside of the blocks, which leave the stream whole, and with the residual width, as SNP
does it."""
RECOVERIES = ("none", "repair", "finetune")
DRAWS = 3
"""How often `random` draws."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A trained model with data: to look at while scoring (unlabelled but for taylor), to train on, to judge by."""

    model: Path
    calibration: Data
    train: Data
    validation: Data
    test: Data
    lr: float
    freeze: Sequence[str] = ()


def task(name: str) -> Task:
    """The model, trained now if it is not there, and its data."""
    if name == "fashion":
        sizes = (("train", 512), ("train", 3_000), ("validation", 1000), ("test", 4_000))
        images = [Data(fashion.rows(split, count), batch_size=64) for split, count in sizes]
        return Task(fashion.trained(), *images, lr=3e-4)
    files = movie(name)
    counts = (("train", 512), ("train", 2000), ("validation", None), ("test", None))
    texts = [files.data(split, limit=count) for split, count in counts]
    return Task(files.model, *texts, lr=5e-5, freeze=FROZEN)


def cases(tasks: Sequence[str]) -> Iterator[Case]:
    """Everything that is measured, quick ones first; random draws are repeated only where nothing follows."""
    for recovery, name in itertools.product(RECOVERIES, tasks):
        for widths, fewer, scorer in itertools.product(WIDTHS, FEWER, SCORERS):
            trained = recovery == "finetune"
            if trained and widths == "inner":
                continue  # what training brings is asked of SNP's own setting
            for draw in range(DRAWS if scorer == "random" and recovery == "none" else 1):
                yield Case(name, widths, fewer, scorer, recovery, draw)


def measure(case: Case, on: Task) -> dict[str, Any]:
    """Prune, recover, and judge on the test split."""
    kinds = WIDTHS[case.widths]
    result = prune_graph(
        on.model,
        Amount(macs=1 - case.fewer, kinds=kinds),
        scorer=scorers.Random(seed=case.draw) if case.scorer == "random" else case.scorer,
        data=on.calibration,
        after=Repair("auto" if case.recovery != "none" else "none"),
    )
    slim = result.ir_model
    if case.recovery == "finetune":
        slim = finetune(
            slim, on.train, teacher=on.model, validation=on.validation, epochs=1, lr=on.lr, freeze=on.freeze
        ).ir_model
    before, after = result.report.macs
    proof = result.report.verify
    assert proof is not None
    return answers(slim, on.test) | {"macs": after / before, "error": proof.max_rel_error}


def answers(model: Path | ir.Model, test: Data) -> dict[str, Any]:
    """Which test examples a model classifies rightly, as it is kept."""
    every = right(model, test)
    return {"right": np.packbits(every).tolist(), "count": len(every)}


def dense(name: str) -> Case:
    """The case that stands for the whole model."""
    return Case(name, "whole", 0.0, "whole", "none")


def main() -> None:
    """Run the command line."""
    parser = study_parser("benchmarks.accuracy", __doc__)
    parser.add_argument("tasks", nargs="*", default=["fashion", "binary", "five"])
    parser.add_argument("--recoveries", nargs="+", choices=RECOVERIES, default=RECOVERIES)
    parser.add_argument("--scorers", nargs="+", choices=SCORERS, default=SCORERS)
    parser.add_argument("--draws", type=int, default=DRAWS, help="of random units")
    parser.add_argument("--markdown", type=Path, help="write the page and its plots here")
    parser.add_argument("--no-run", action="store_true", help="show what was measured before")
    arguments = parser.parse_args()
    records = Records(RESULTS)
    chosen = [
        case
        for case in cases(arguments.tasks)
        if case.recovery in arguments.recoveries and case.scorer in arguments.scorers and case.draw < arguments.draws
    ]
    todo = [case for case in chosen if not arguments.no_run and records.recall(str(case)) is None]
    tasks = {} if arguments.no_run else {name: task(name) for name in arguments.tasks}
    for name, on in tasks.items():
        if records.recall(str(dense(name))) is None:
            records.keep(str(dense(name)), answers(on.model, on.test) | {"macs": 1.0, "error": 0.0})
    for number, case in enumerate(todo, 1):
        result = records.keep(str(case), measure(case, tasks[case.task]))
        print(f"{number}/{len(todo)} {case}: {bits(result).mean():.1%}", file=sys.stderr, flush=True)
    every = [*map(dense, arguments.tasks), *cases(arguments.tasks)]
    if arguments.markdown:
        render({c: r for c in every if (r := records.recall(str(c))) is not None}, arguments.markdown)


if __name__ == "__main__":
    main()
