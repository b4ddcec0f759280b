"""CAHP on a fine-tuned MiniLM-L6: what each step costs, where the knee is, and how accurate what stays is.

    python -m benchmarks.cahp --task binary --seed 0 [--epochs 1] [--json FILE]

Heads are described, clustered and weighed on the training sentences.  Retrain-free accuracy is that of the test
sentences with the other heads closed by the head gate; `michel`, `taylor` and random heads keep as many.  With
--epochs, heads are cut out instead and the slim model is trained again on labels, the original as teacher.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from benchmarks.harness import Section, study_parser
from benchmarks.judge import Bools, Keep, MaskedModel, Ranking, right
from benchmarks.movie import FROZEN, TASKS, movie
from prunegraph import Selection, finetune
from prunegraph.observe.gradients import Objective
from prunegraph.observe.stream import observe
from prunegraph.passes.score import Cahp, Context, Taylor, score_with
from prunegraph.passes.score.cahp import OBSERVATION, SALIENCE
from prunegraph.passes.score.clusters import curve, reduce
from prunegraph.passes.score.complement import Chosen, choose
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients
from prunegraph.passes.score.michel import by_layer
from prunegraph.passes.score.separability import features
from prunegraph.passes.score.signature import Signatures
from prunegraph.result import apply
from prunegraph.torch_twin.backward import backward

T = TypeVar("T")

HEADER = ("degree", "kept", "cahp", "its medoids", "michel", "taylor", "random", "by layer", "michel by layer")
DEGREES = (2, 3, 4, 5, 6, 8)
JUDGED = (2, 4, 6)
SEEDS = range(5)
TRAINED_DEGREE = 4
SPLITS = {"data": "train", "validation": "validation"}


def main() -> None:
    """Measure one model and print three tables."""
    parser = study_parser("benchmarks.cahp", __doc__)
    parser.add_argument("--task", choices=list(TASKS), default="binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, help="training sentences to look at; all by default")
    parser.add_argument("--epochs", type=int, default=0, help="fine-tune what stays at one degree for so long")
    parser.add_argument("--trained-on", type=int, help="training sentences of an epoch; all by default")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    model = Described(arguments.task, arguments.seed, arguments.samples)
    figures: dict[str, Any] = {"task": arguments.task, "seed": arguments.seed, "load": os.getloadavg()[0]}
    figures |= {"steps": model.steps, "peak MB": round(model.peak), "dense": model.accuracy({})}
    if arguments.epochs:
        figures["trained"] = model.trained(arguments.epochs, arguments.trained_on)
    else:
        figures |= {"knees": model.knees(), "accuracy": model.judged()}
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=1))
    show(figures)


class Described(MaskedModel):
    """One fine-tuned model, what was observed of it, and its test sentences."""

    def __init__(self, task: str, seed: int, samples: int | None) -> None:
        """Observe, differentiate and reduce, each with its time."""
        self.files = movie(task, seed)
        super().__init__(self.files.model)
        self.steps: dict[str, dict[str, float]] = {}
        model, original = self.context.model, self.analyzed.original
        train = self.files.data("train", limit=samples).inputs(original)
        self.signatures: Signatures = Cahp().observes(self.heads, self.context, train)[OBSERVATION]  # type: ignore[assignment]
        self.timed("signatures", lambda: observe(model, train, [self.signatures]), self.signatures.counts)
        gates = Cahp().gradients(self.heads, self.context, train)[SALIENCE]
        assert isinstance(gates, HeadMaskGradients)
        self.gates, self.part = gates, train.first(gates.samples)
        self.objective = Objective.of(model, self.context.analysis, train)
        self.timed("salience", lambda: backward(model, self.part, [gates], self.objective, None))
        self.steps["salience"]["sentences"] = gates.count
        self.points = self.timed("t-SNE", lambda: reduce(features(self.signatures), "tsne", 42))
        self.timed("silhouettes and knee", lambda: curve(self.points, 6, 42))
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        self.michel: Ranking = {group.id: by_layer(gates, group.id) for group in self.heads}
        self.batches = list(self.files.data("test", batch_size=32).inputs(original).batches())

    def timed(self, name: str, work: Callable[[], T], counts: list[int] | None = None) -> T:
        """Run a step and keep its seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        taken = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        self.steps[name] = {**taken, **({"sentences": sum(counts)} if counts is not None else {})}
        Console(stderr=True).print(f"{name}: {taken['seconds']:.1f} s, {taken['cpu']:.1f} CPU-s")
        return value

    def accuracy(self, keep: Keep) -> float:
        """The share of test sentences that is right with these heads only."""
        return float(self.right(keep, self.batches).mean())

    def best_of(self, ranking: Ranking, count: int) -> dict[str, Bools]:
        """By group the best, so many in all."""
        return self.best(ranking, 1 - count / sum(group.units for group in self.heads))

    def knees(self) -> dict[str, list[int]]:
        """By reducer the number of clusters at the knee for every degree."""
        knees = {"t-SNE": [curve(self.points, degree, 42).knee for degree in DEGREES]}
        for name in ("pca", "mds"):
            points = reduce(features(self.signatures), name, 42)
            knees[name] = [curve(points, degree, 42).knee for degree in DEGREES]
        return knees

    def chosen(self, degree: int, medoids: bool = False) -> Chosen:
        """What CAHP keeps at the knee of this degree."""
        return choose(self.signatures, self.gates, count=None, degree=degree, reducer="tsne", seed=42, medoids=medoids)

    def judged(self) -> dict[str, dict[str, Any]]:
        """By degree the accuracy of what stays, and of as many heads that others would keep."""
        weights = Taylor().gradients(self.heads, self.context, self.part)
        backward(self.context.model, self.part, list(weights.values()), self.objective, None)
        context = Context(self.context.model, self.context.analysis, observations=weights)
        taylor = score_with("taylor", self.heads, context)
        by_degree = {}
        for degree in JUDGED:
            ours, medoids = self.chosen(degree), self.chosen(degree, medoids=True)
            count = int(ours.keep.sum())
            michel = self.best_of(self.michel, count)
            drawn = [self.accuracy(self.best_of(self.ranked("random", seed), count)) for seed in SEEDS]
            by_degree[str(degree)] = {
                "kept": count,
                "by layer": [int(mask.sum()) for mask in self.keep(ours).values()],
                "michel by layer": [int(mask.sum()) for mask in michel.values()],
                "cahp": self.accuracy(self.keep(ours)),
                "medoids": [int(medoids.keep.sum()), self.accuracy(self.keep(medoids))],
                "michel": self.accuracy(michel),
                "taylor": self.accuracy(self.best_of(taylor, count)),
                "random": [float(np.mean(drawn)), float(np.std(drawn))],
            }
        return by_degree

    def trained(self, epochs: int, sentences: int | None) -> dict[str, Any]:
        """Accuracy on the test sentences after fine-tuning what stays at one degree."""
        ours = self.chosen(TRAINED_DEGREE)
        count = int(ours.keep.sum())
        keeps = {"cahp": self.keep(ours), "michel": self.best_of(self.michel, count)}
        keeps["random"] = self.best_of(self.ranked("random"), count)
        figures: dict[str, Any] = {"degree": TRAINED_DEGREE, "kept": count, "epochs": epochs, "sentences": sentences}
        splits = {name: self.files.data(split, limit=sentences) for name, split in SPLITS.items()}
        for name, keep in keeps.items():
            slim = apply(self.analyzed, Selection({k: mask for k, mask in keep.items() if not mask.all()})).ir_model
            work = partial(finetune, slim, teacher=self.files.model, epochs=epochs, freeze=FROZEN, **splits)
            tuned = self.timed(f"fine-tuning ({name})", work).ir_model
            figures[name] = [self.accuracy(keep), float(right(tuned, self.files.data("test")).mean())]
        return figures

    def keep(self, chosen: Chosen) -> dict[str, Bools]:
        """By group what stays."""
        return {name: chosen.keep[chosen.owner == k] for k, name in enumerate(chosen.shapes)}


def show(figures: Mapping[str, Any]) -> None:
    """Print the tables."""
    steps = [
        (name, f"{step.get('sentences', '')}", f"{step['seconds']:.1f}", f"{step['cpu']:.1f}")
        for name, step in figures["steps"].items()
    ]
    note = f"peak memory {figures['peak MB']:,} MB, load average {figures['load']:.1f}; dense: {figures['dense']:.1%}"
    title = f"{figures['task']}, seed {figures['seed']}"
    Section(title, ("step", "sentences", "seconds", "CPU seconds"), steps, note).show()
    if "trained" in figures:
        Console().print(figures["trained"])
        return
    knees = [(name, *map(str, row)) for name, row in figures["knees"].items()]
    Section("", ("clusters at the knee", *(f"degree {degree}" for degree in DEGREES)), knees).show()
    rows = []
    for degree, row in figures["accuracy"].items():
        count, medoids = row["medoids"]
        mean, spread = row["random"]
        shares = [f"{row['cahp']:.1%}", f"{medoids:.1%} ({count})", f"{row['michel']:.1%}", f"{row['taylor']:.1%}"]
        layers = [" ".join(map(str, row[name])) for name in ("by layer", "michel by layer")]
        rows.append((degree, str(row["kept"]), *shares, f"{mean:.1%} ± {spread:.1%}", *layers))
    Section("", HEADER, rows).show()


if __name__ == "__main__":
    main()
