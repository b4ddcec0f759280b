"""CAHP on a fine-tuned MiniLM-L6: what each step costs, where the knee is, and how accurate what stays is.

    python -m benchmarks.cahp --task binary --seed 0 [--epochs 1]

Heads are described, clustered and weighed on the training sentences.  Retrain-free accuracy is that of the test
sentences with the other heads closed by the head gate; `michel`, `taylor` and random heads keep as many.  With
--epochs, heads are cut out instead and the slim model is trained again on labels, the original as teacher.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from rich.console import Console

from benchmarks.finetune import tuned
from benchmarks.harness import Section, describe, study_parser
from benchmarks.judge import Bools, Keep, MaskedModel, Ranking, right
from benchmarks.movie import TASKS, movie
from prunegraph import Selection
from prunegraph.bench.environment import peak_memory_mib
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


def main() -> None:
    """Measure one model and print three tables."""
    parser = study_parser("benchmarks.cahp", __doc__)
    parser.add_argument("--task", choices=list(TASKS), default="binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, help="training sentences to look at; all by default")
    parser.add_argument("--epochs", type=int, default=0, help="fine-tune what stays at one degree for so long")
    parser.add_argument("--trained-on", type=int, help="training sentences of an epoch; all by default")
    arguments = parser.parse_args()
    model = Described(arguments.task, arguments.seed, arguments.samples)
    peak = f"peak memory {peak_memory_mib() or 0:,.0f} MiB"
    if arguments.epochs:
        tables = [model.trained(arguments.epochs, arguments.trained_on)]
    else:
        tables = [model.knees(), model.judged()]
    note = f"{describe('onnxruntime')}; {peak}; dense: {model.accuracy({}):.1%}"
    title = f"{arguments.task}, seed {arguments.seed}"
    for table in (Section(title, ("step", "sentences", "seconds", "CPU seconds"), model.steps, note), *tables):
        table.show()


class Described(MaskedModel):
    """One fine-tuned model, what was observed of it, and its test sentences."""

    def __init__(self, task: str, seed: int, samples: int | None) -> None:
        """Observe, differentiate and reduce, each with its time."""
        self.files = movie(task, seed)
        super().__init__(self.files.model)
        self.steps: list[tuple[str, ...]] = []
        model, original = self.context.model, self.analyzed.original
        train = self.files.data("train", limit=samples).inputs(original)
        self.signatures: Signatures = Cahp().observes(self.heads, self.context, train)[OBSERVATION]  # type: ignore[assignment]
        self.timed("signatures", lambda: observe(model, train, [self.signatures]), lambda: sum(self.signatures.counts))
        gates = Cahp().gradients(self.heads, self.context, train)[SALIENCE]
        assert isinstance(gates, HeadMaskGradients)
        self.gates, self.part = gates, train.first(gates.samples)
        self.objective = Objective.of(model, self.context.analysis, train)
        self.timed("salience", lambda: backward(model, self.part, [gates], self.objective, None), lambda: gates.count)
        self.points = self.timed("t-SNE", lambda: reduce(features(self.signatures), "tsne", 42))
        self.timed("silhouettes and knee", lambda: curve(self.points, 6, 42))
        self.michel: Ranking = {group.id: by_layer(gates, group.id) for group in self.heads}
        self.batches = list(self.files.data("test", batch_size=32).inputs(original).batches())

    def timed(self, name: str, work: Callable[[], T], sentences: Callable[[], object] = str) -> T:
        """Run a step and keep how many sentences it saw, and its seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        taken = (time.perf_counter() - wall, time.process_time() - cpu)
        self.steps.append((name, f"{sentences()}", *(f"{seconds:.1f}" for seconds in taken)))
        Console(stderr=True).print(*self.steps[-1])
        return value

    def accuracy(self, keep: Keep) -> float:
        """The share of test sentences that is right with these heads only."""
        return float(self.right(keep, self.batches).mean())

    def best_of(self, ranking: Ranking, count: int) -> dict[str, Bools]:
        """By group the best, so many in all."""
        return self.best(ranking, 1 - count / sum(group.units for group in self.heads))

    def chosen(self, degree: int, medoids: bool = False) -> Chosen:
        """What CAHP keeps at the knee of this degree."""
        return choose(self.signatures, self.gates, count=None, degree=degree, reducer="tsne", seed=42, medoids=medoids)

    def keep(self, chosen: Chosen) -> dict[str, Bools]:
        """By group what stays."""
        return {name: chosen.keep[chosen.owner == k] for k, name in enumerate(chosen.shapes)}

    def knees(self) -> Section:
        """By reducer the number of clusters at the knee for every degree."""
        points = {"t-SNE": self.points} | {name: reduce(features(self.signatures), name, 42) for name in ("pca", "mds")}
        rows = [(name, *(str(curve(of, degree, 42).knee) for degree in DEGREES)) for name, of in points.items()]
        return Section("", ("clusters at the knee", *(f"degree {degree}" for degree in DEGREES)), rows)

    def judged(self) -> Section:
        """By degree the accuracy of what stays, and of as many heads that others would keep."""
        weights = Taylor().gradients(self.heads, self.context, self.part)
        backward(self.context.model, self.part, list(weights.values()), self.objective, None)
        context = Context(self.context.model, self.context.analysis, observations=weights)
        taylor = score_with("taylor", self.heads, context)
        rows = []
        for degree in JUDGED:
            ours, medoids = self.chosen(degree), self.chosen(degree, medoids=True)
            count = int(ours.keep.sum())
            keeps = {"cahp": self.keep(ours), "medoids": self.keep(medoids)}
            keeps |= {"michel": self.best_of(self.michel, count), "taylor": self.best_of(taylor, count)}
            shares = {name: f"{self.accuracy(keep):.1%}" for name, keep in keeps.items()}
            shares["medoids"] += f" ({int(medoids.keep.sum())})"
            drawn = [self.accuracy(self.best_of(self.ranked("random", seed), count)) for seed in SEEDS]
            layers = [" ".join(str(mask.sum()) for mask in keeps[name].values()) for name in ("cahp", "michel")]
            rows.append(
                (str(degree), str(count), *shares.values(), f"{np.mean(drawn):.1%} ± {np.std(drawn):.1%}", *layers)
            )
        return Section("", HEADER, rows)

    def trained(self, epochs: int, sentences: int | None) -> Section:
        """Accuracy on the test sentences of what stays at one degree, before and after fine-tuning."""
        ours = self.chosen(TRAINED_DEGREE)
        count = int(ours.keep.sum())
        keeps = {"cahp": self.keep(ours), "michel": self.best_of(self.michel, count)}
        keeps["random"] = self.best_of(self.ranked("random"), count)
        rows = []
        for name, keep in keeps.items():
            slim = apply(self.analyzed, Selection({k: mask for k, mask in keep.items() if not mask.all()})).ir_model
            model = self.timed(f"fine-tuning ({name})", partial(tuned, slim, self.files, sentences, epochs=epochs))
            after = right(model, self.files.data("test")).mean()
            rows.append((name, f"{self.accuracy(keep):.1%}", f"{after:.1%}"))
        title = f"{count} heads of degree {TRAINED_DEGREE}, {epochs} epochs of {sentences or 'all'} sentences"
        return Section(title, ("heads", "before", "after"), rows)


if __name__ == "__main__":
    main()
