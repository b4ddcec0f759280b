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
    parser.add_argument("--trained-on", type=int, help="training sentences of an epoch; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = movie(arguments.task, arguments.seed)
    slim = prune_graph(files.model, RATIO).ir_model
    rows = [(name, *shares(model, files), "") for name, model in (("dense", files.model), ("pruned", slim))]
    for name in arguments.variant:
        started = time.process_time()
        options = {"epochs": arguments.epochs, "lr": arguments.lr, **VARIANTS[name]}
        model = tuned(slim, files, arguments.trained_on, **options)
        rows.append((name, *shares(model, files), f"{time.process_time() - started:.0f}"))
        Console(stderr=True).print(name, "done")
    header = ("", "test accuracy", "validation accuracy", "CPU seconds")
    Section(f"{arguments.task}, seed {arguments.seed}, {RATIO} by magnitude", header, rows).show()


def tuned(slim: ir.Model, files: Movie, sentences: int | None = None, **options: Any) -> ir.Model:
    """A slim model after training on so many of the sentences, its dense model the teacher."""
    splits = {"data": files.data("train", limit=sentences), "validation": files.data("validation", limit=sentences)}
    return finetune(slim, **splits, teacher=files.model, freeze=FROZEN, **options).ir_model


def shares(model: Path | ir.Model, files: Movie) -> tuple[str, ...]:
    """Accuracy on test and validation split."""
    return tuple(f"{right(model, files.data(split)).mean():.1%}" for split in ("test", "validation"))


if __name__ == "__main__":
    main()
