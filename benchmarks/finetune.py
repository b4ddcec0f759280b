"""What one epoch gives back to a pruned classifier of movie reviews: half of the heads and FFN neurons gone.

    python -m benchmarks.finetune --task binary --variant labels teacher hidden

Accuracy on the test split, run by ONNX Runtime; CPU seconds of one thread.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.harness import Section, study_parser
from benchmarks.movie import TASKS, Movie, accuracy, movie
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
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        slim = Path(folder) / "slim.onnx"
        prune_graph(files.model, RATIO).save(slim)
        for name, model in (("dense", files.model), ("pruned", slim)):
            shares = [accuracy(model, data, files.tokenizer) for data in (files.test, files.validation)]
            rows.append((name, *(f"{share:.1%}" for share in shares), ""))
        for name in arguments.variant:
            rows.append((name, *tuned(slim, files, arguments.epochs, arguments.lr, **VARIANTS[name])))
            Console(stderr=True).print(name, "done")
    header = ("", "test accuracy", "validation accuracy", "CPU seconds")
    Section(f"{arguments.task}, seed {arguments.seed}, {RATIO} by magnitude", header, rows).show()


def tuned(slim: Path, files: Movie, epochs: int, lr: float, **options: Any) -> tuple[str, str, str]:
    """Accuracy on test and validation split after fine-tuning, and what that took."""
    started = time.process_time()
    result = finetune(
        slim,
        files.train,
        teacher=files.model,
        tokenizer=files.tokenizer,
        validation=files.validation,
        epochs=epochs,
        lr=lr,
        freeze=["*word_embeddings*"],
        **options,
    )
    seconds = time.process_time() - started
    made = slim.with_name("tuned.onnx")
    result.save(made)
    return f"{accuracy(made, files.test, files.tokenizer):.1%}", f"{result.after:.1%}", f"{seconds:.0f}"


if __name__ == "__main__":
    main()
