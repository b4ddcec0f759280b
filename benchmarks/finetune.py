"""What one epoch gives back to a pruned classifier of movie reviews: half of the heads and FFN neurons gone.

    python -m benchmarks.finetune --task binary --variant labels teacher hidden

Accuracy on the test split, run by ONNX Runtime; CPU seconds of one thread.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from rich.console import Console

from benchmarks.harness import Section, study_parser
from benchmarks.judge import right
from benchmarks.movie import FROZEN, TASKS, Movie, movie
from prunegraph import finetune, prune_graph

RATIO = {"head": 0.5, "ffn": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "labels": {"distill": 0.0},
    "teacher": {},
    "hidden": {"hidden": 1.0},
    "only teacher": {"distill": 1.0},
}
"""What is learnt from, by the options that say so."""


def main() -> None:
    """Prune, fine-tune in every wanted way, and print one table."""
    parser = study_parser("benchmarks.finetune", __doc__)
    parser.add_argument("--task", choices=TASKS, default="binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = movie(arguments.task, arguments.seed)
    slim = prune_graph(files.model, RATIO).ir_model
    rows = [(name, *shares(model, files), "") for name, model in (("dense", files.model), ("pruned", slim))]
    for name in arguments.variant:
        started = time.process_time()
        splits = {"data": files.data("train"), "validation": files.data("validation")}
        options = {"epochs": arguments.epochs, "lr": arguments.lr, "freeze": FROZEN, **VARIANTS[name]}
        tuned = finetune(slim, **splits, teacher=files.model, **options)
        seconds = time.process_time() - started
        rows.append((name, *shares(tuned.ir_model, files), f"{seconds:.0f}"))
        Console(stderr=True).print(name, "done")
    header = ("", "test accuracy", "validation accuracy", "CPU seconds")
    Section(f"{arguments.task}, seed {arguments.seed}, {RATIO} by magnitude", header, rows).show()


def shares(model: Path | ir.Model, files: Movie) -> tuple[str, ...]:
    """Accuracy on test and validation split."""
    return tuple(f"{right(model, files.data(split)).mean():.1%}" for split in ("test", "validation"))


if __name__ == "__main__":
    main()
