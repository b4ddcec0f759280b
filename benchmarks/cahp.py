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
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from benchmarks.harness import study_parser
from benchmarks.movie import TASKS, accuracy, movie
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.observe.gradients import Objective
from prunegraph.observe.head_mask import HeadMaskSession, head_mask_of, with_head_mask
from prunegraph.observe.stream import Data, observe
from prunegraph.passes.choose.rank import global_counts, select
from prunegraph.passes.score import Cahp, Context, Scores, Taylor, score_with
from prunegraph.passes.score.cahp import OBSERVATION, SALIENCE
from prunegraph.passes.score.clusters import curve, reduce
from prunegraph.passes.score.complement import Chosen, choose
from prunegraph.passes.score.head_mask_gradients import HeadMaskGradients
from prunegraph.passes.score.michel import by_layer
from prunegraph.passes.score.separability import features
from prunegraph.passes.score.signature import Signatures
from prunegraph.result import apply
from prunegraph.runtime.session import open_session
from prunegraph.torch_twin.backward import backward

Mask = npt.NDArray[np.bool_]
Keep = Mapping[str, Mask]
T = TypeVar("T")

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
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    bench = Bench(arguments.task, arguments.seed, arguments.samples)
    found: dict[str, Any] = {"task": arguments.task, "seed": arguments.seed, "load": os.getloadavg()[0]}
    found["steps"], found["peak MB"] = bench.steps, round(bench.peak)
    found["dense"] = bench.accuracy({})
    if arguments.epochs:
        found["trained"] = bench.trained(arguments.epochs, arguments.trained_on)
    else:
        found["knees"], found["accuracy"] = bench.knees(), bench.judged()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1))
    show(found)


class Bench:
    """One fine-tuned model, what was observed of it, and its test sentences."""

    def __init__(self, task: str, seed: int, samples: int | None) -> None:
        """Observe, differentiate and reduce, each with its time."""
        self.files = movie(task, seed)
        self.steps: dict[str, dict[str, float]] = {}
        self.found = load_and_analyze(self.files.model)
        self.heads: list[Group] = [group for group in self.found.analysis.groups if group.kind == "head"]
        model, analysis = self.found.normalized.model, self.found.analysis
        context = Context(model, analysis)
        train = Data(self.files.train, self.files.tokenizer, limit=samples).inputs(self.found.original)
        self.signatures: Signatures = Cahp().observes(self.heads, context, train)[OBSERVATION]  # type: ignore[assignment]
        self.timed("signatures", lambda: observe(model, train, [self.signatures]), self.signatures.counts)
        gates = Cahp().gradients(self.heads, context, train)[SALIENCE]
        assert isinstance(gates, HeadMaskGradients)
        self.gates, part = gates, train.first(gates.samples)
        objective = Objective.of(model, analysis, train)
        self.timed("salience", lambda: backward(model, part, [gates], objective, None))
        self.steps["salience"]["sentences"] = gates.count
        self.points = self.timed("t-SNE", lambda: reduce(features(self.signatures), "tsne", 42))
        self.curve = self.timed("silhouettes and knee", lambda: curve(self.points, 6, 42))
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        self.part, self.objective = part, objective
        self.michel: dict[str, Scores] = {group.id: by_layer(gates, group.id) for group in self.heads}
        self._open()

    def timed(self, name: str, work: Callable[[], T], counts: list[int] | None = None) -> T:
        """Run a step and keep its seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        taken = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        self.steps[name] = {**taken, **({"sentences": sum(counts)} if counts is not None else {})}
        Console(stderr=True).print(f"{name}: {taken['seconds']:.1f} s, {taken['cpu']:.1f} CPU-s")
        return value

    def _open(self) -> None:
        twin, self.sites = with_head_mask(self.found.normalized.model, self.found.analysis)
        self._session = open_session(twin)
        self.session = self._session.__enter__()
        inputs = Data(self.files.test, self.files.tokenizer, batch_size=32).inputs(self.found.original)
        self.batches = list(inputs.batches())

    def accuracy(self, keep: Keep) -> float:
        """The share of test sentences that is right with these heads only."""
        session = HeadMaskSession(self.session, head_mask_of(self.sites, keep))
        right: list[bool] = []
        for batch in self.batches:
            (logits,) = session.run([session.get_outputs()[0].name], batch.feeds)
            right += [int(row.argmax()) == s.label for row, s in zip(logits, batch.samples, strict=False)]
        return float(np.mean(right))

    def knees(self) -> dict[str, list[int]]:
        """By reducer the number of clusters at the knee for every degree."""
        found = {"t-SNE": [curve(self.points, degree, 42).knee for degree in DEGREES]}
        for name in ("pca", "mds"):
            points = reduce(features(self.signatures), name, 42)
            found[name] = [curve(points, degree, 42).knee for degree in DEGREES]
        return found

    def chosen(self, degree: int, medoids: bool = False) -> Chosen:
        """What CAHP keeps at the knee of this degree."""
        return choose(self.signatures, self.gates, count=None, degree=degree, reducer="tsne", seed=42, medoids=medoids)

    def judged(self) -> dict[str, dict[str, Any]]:
        """By degree the accuracy of what stays, and of as many heads that others would keep."""
        taylor, found = self.taylor(), {}
        for degree in JUDGED:
            ours, medoids = self.chosen(degree), self.chosen(degree, medoids=True)
            count = int(ours.keep.sum())
            drawn = [self.accuracy(self.random(count, seed)) for seed in SEEDS]
            found[str(degree)] = {
                "kept": count,
                "by layer": [int(mask.sum()) for mask in self.keep(ours).values()],
                "michel by layer": [int(mask.sum()) for mask in self.best(self.michel, count).values()],
                "cahp": self.accuracy(self.keep(ours)),
                "medoids": [int(medoids.keep.sum()), self.accuracy(self.keep(medoids))],
                "michel": self.accuracy(self.best(self.michel, count)),
                "taylor": self.accuracy(self.best(taylor, count)),
                "random": [float(np.mean(drawn)), float(np.std(drawn))],
            }
        return found

    def taylor(self) -> dict[str, Scores]:
        """Scores by gradients of weights, from the sentences that salience is from."""
        model, analysis = self.found.normalized.model, self.found.analysis
        weights = Taylor().gradients(self.heads, Context(model, analysis), self.part)
        backward(model, self.part, list(weights.values()), self.objective, None)
        return score_with("taylor", self.heads, Context(model, analysis, observations=weights))

    def trained(self, epochs: int, sentences: int | None) -> dict[str, Any]:
        """Accuracy on the test sentences after fine-tuning what stays at one degree."""
        from prunegraph.train.finetune import finetune

        ours = self.chosen(TRAINED_DEGREE)
        count = int(ours.keep.sum())
        keeps = {"cahp": self.keep(ours), "michel": self.best(self.michel, count), "random": self.random(count, 0)}
        found: dict[str, Any] = {"degree": TRAINED_DEGREE, "kept": count, "epochs": epochs, "sentences": sentences}
        for name, keep in keeps.items():
            slim = apply(self.found, Selection({k: mask for k, mask in keep.items() if not mask.all()})).ir_model
            tuned = self.timed(
                f"fine-tuning ({name})",
                lambda slim=slim: finetune(  # type: ignore[misc]
                    slim,
                    Data(self.files.train, self.files.tokenizer, limit=sentences),
                    teacher=self.files.model,
                    validation=Data(self.files.validation, self.files.tokenizer, limit=sentences),
                    epochs=epochs,
                    freeze=("*word_embeddings*",),
                ),
            )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "tuned.onnx"
                ir.save(tuned.ir_model, path)
                found[name] = [self.accuracy(keep), accuracy(path, self.files.test, self.files.tokenizer)]
        return found

    def keep(self, chosen: Chosen) -> dict[str, Mask]:
        """By group what stays."""
        return {name: chosen.keep[chosen.owner == k] for k, name in enumerate(chosen.shapes)}

    def best(self, scores: Mapping[str, Scores], count: int) -> dict[str, Mask]:
        """By group the best, so many in all, at least one a layer."""
        total = sum(group.units for group in self.heads)
        counts = global_counts(self.heads, scores, lambda group: 1 - count / total)
        whole = {group.id: np.ones(group.shape, dtype=bool) for group in self.heads}
        return whole | dict(select(self.heads, scores, counts).keep)

    def random(self, count: int, seed: int) -> dict[str, Mask]:
        """The same of random scores."""
        rng = np.random.default_rng(seed)
        return self.best({group.id: rng.random(group.shape) for group in self.heads}, count)


def show(found: Mapping[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=140)
    steps = Table("step", "sentences", "seconds", "CPU seconds", title=f"{found['task']}, seed {found['seed']}")
    for name, step in found["steps"].items():
        steps.add_row(name, f"{step.get('sentences', '')}", f"{step['seconds']:.1f}", f"{step['cpu']:.1f}")
    console.print(steps, f"peak memory {found['peak MB']:,} MB, load average {found['load']:.1f}")
    if "trained" in found:
        console.print(f"dense: {found['dense']:.1%}", found["trained"])
        return
    knees = Table("clusters at the knee", *(f"degree {degree}" for degree in DEGREES))
    for name, row in found["knees"].items():
        knees.add_row(name, *map(str, row))
    console.print(knees)
    table = Table("degree", "kept", "cahp", "its medoids", "michel", "taylor", "random", "by layer", "michel by layer")
    for degree, row in found["accuracy"].items():
        mean, spread = row["random"]
        cells = [f"{row[name]:.1%}" for name in ("cahp",)] + [f"{row['medoids'][1]:.1%} ({row['medoids'][0]})"]
        cells += [f"{row['michel']:.1%}", f"{row['taylor']:.1%}", f"{mean:.1%} ± {spread:.1%}"]
        layers = [" ".join(map(str, row[name])) for name in ("by layer", "michel by layer")]
        table.add_row(degree, str(row["kept"]), *cells, *layers)
    console.print(f"dense: {found['dense']:.1%}", table)


if __name__ == "__main__":
    main()
