"""The page of `benchmarks.accuracy`: what every cut costs, with intervals over seeds, beside what was aimed at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import prunegraph as pg
from benchmarks.accuracy_study import Arm
from benchmarks.harness import Section, write_page


@dataclass(frozen=True, slots=True)
class Cell:
    """What is cut.

    Attributes:
        name: What the tables call it.
        amount: How much goes.
        tasks: On which tasks.
        goal: How many points it may cost; None where nothing was aimed at.
    """

    name: str
    amount: pg.Amount
    tasks: tuple[str, ...]
    goal: float | None = None


@dataclass(frozen=True, order=True)
class Case:
    """One number: a dense model, what is cut of it and how, and what it is judged by."""

    task: str
    seed: int
    split: str
    cell: str
    arm: str
    repair: str

    def __str__(self) -> str:
        return "/".join((self.task, str(self.seed), self.split, self.cell, self.arm, self.repair))


Recall = Callable[[str], dict[str, Any] | None]

HEAD = """# Accuracy without training

Written by `python -m benchmarks.accuracy --markdown docs/accuracy.md` on a CPU. Nothing is trained after a cut.

Tasks: movie-review sentences in two classes (*binary*) and in five (*five*), classified by a MiniLM-L6 (post-norm, 384
wide, 12 heads of 32), and Fashion-MNIST (*fashion*), by a small ViT (pre-norm, 192 wide). Of each there are up to three
dense models, trained with other seeds. Bases, choice and repair see {calibration} unlabelled training examples, unless
a row says that it reads labels; the test split is looked at once, by the judge. Every model of the first seed was
proven equal to the masked original before its repair.

**Points lost** are the accuracy of the dense model minus that of the slim one, in percentage points, negative where the
slim one is better. ± is half of a 95 % interval by a paired bootstrap: examples are drawn, and for each the mean over
all seeds is taken; the seeds themselves are not drawn. A figure in brackets says how many dense models stand behind it
where that is fewer than three; nothing stands where nothing was measured.

"""

SEEDS = 3
REPAIRS = {"none": "no repair", "once": "at once", "auto": "repaired"}


class Lost(NamedTuple):
    """What a cut cost, over the seeds that were measured."""

    seeds: int
    dense: float
    slim: float
    half: float

    @property
    def points(self) -> float:
        """Points lost."""
        return 100 * (self.dense - self.slim)

    def __str__(self) -> str:
        count = "" if self.seeds == SEEDS else f" ({self.seeds})"
        return f"{self.points:+.1f} ± {100 * self.half:.1f}{count}"


def render(
    recall: Recall,
    target: Path,
    *,
    calibration: int,
    cells: Sequence[Cell],
    arms: Sequence[Arm],
    sweeps: Sequence[Cell],
    choices: Sequence[Cell],
    scorers: Sequence[Arm],
) -> None:
    """Write the page, and beside it a plot."""
    sections = [
        _goals(recall, cells, arms),
        _embedding(recall),
        _arms(recall, cells, arms),
        _ways(recall, cells, arms),
        _sweeps(recall, sweeps, arms[0]),
        _choices(recall, choices, scorers, arms[0]),
    ]
    lines = [HEAD.format(calibration=calibration)]
    picture = target.parent / "accuracy.png"
    if _plot(recall, cells, arms, picture):
        lines += [f"![Points lost of every cut, with intervals, beside the goals]({picture.name})", ""]
    write_page(target, [*lines, *(line for section in sections if section for line in section.lines())])


def lost(recall: Recall, task: str, split: str, cell: str, arm: str, repair: str) -> Lost | None:
    """What a cut cost; None where it was not measured."""
    pairs = []
    for seed in range(SEEDS):
        slim, whole = (recall(str(Case(task, seed, split, *what))) for what in ((cell, arm, repair), ("whole", "", "")))
        if slim is not None and whole is not None:
            pairs.append((bits(whole), bits(slim)))
    if not pairs:
        return None
    dense, slims = (np.stack(each) for each in zip(*pairs, strict=True))
    return Lost(len(pairs), float(dense.mean()), float(slims.mean()), _half_interval((dense - slims).mean(axis=0)))


def bits(result: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Per example 1.0 where the model is right."""
    return np.unpackbits(np.array(result["right"], np.uint8), count=result["count"]).astype(np.float64)


def _half_interval(difference: npt.NDArray[np.float64]) -> float:
    rng = np.random.default_rng(0)
    means = [rng.choice(difference, len(difference)).mean() for _ in range(1000)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(high - low) / 2


class Measured(NamedTuple):
    """What a cut by default cost on a task, and how it was repaired; None where it was not measured."""

    cell: Cell
    task: str
    way: str
    cost: Lost | None


def _measured(recall: Recall, cells: Sequence[Cell], arms: Sequence[Arm]) -> Iterator[Measured]:
    """By default, or at once on more dense models where those repaired by default are fewer."""
    alike = [arm for arm in arms if (arm.rotate, arm.scorer) == (arms[0].rotate, arms[0].scorer)]
    ways = [(arms[0].name, "auto"), *((arm.name, way) for arm in alike for way in arm.repairs if way == "once")]
    for cell in cells:
        for task in cell.tasks:
            costs = [(way, lost(recall, task, "test", cell.name, name, way)) for name, way in ways]
            yield Measured(cell, task, *max(costs, key=lambda each: each[1].seeds if each[1] is not None else 0))


def _goals(recall: Recall, cells: Sequence[Cell], arms: Sequence[Arm]) -> Section:
    rows = []
    for cell, task, way, cost in _measured(recall, cells, arms):
        goal = f"{cell.goal:.1f}"
        if cost is None:
            rows.append([cell.name, task, "", "", "", "not measured", goal, ""])
            continue
        met = "yes" if cost.points <= (cell.goal or 0) else "no"
        rows.append([cell.name, task, REPAIRS[way], f"{cost.dense:.1%}", f"{cost.slim:.1%}", str(cost), goal, met])
    note = (
        "Heads and pre-norm streams turned by the data, FFN neurons and post-norm streams chosen by `activation`, "
        "*repaired*: what is done by default with data, without labels; *at once*: without the sweep that is tried by "
        "default, where that was measured on more dense models. A goal is met where the points lost are not more than "
        "it, whatever the interval."
    )
    head = ["cut", "task", "repair", "dense", "slim", "points lost", "goal", "met"]
    return Section("Goals", head, rows, note, texts=3)


def _embedding(recall: Recall) -> Section | None:
    result = recall("embedding")
    if result is None:
        return None
    note = (
        f"Half of the Q/K dims of all-MiniLM-L6-v2 as it is published, turned by {result['calibration']} sentences: "
        f"the mean cosine between the embeddings of the whole and of the slim model is **{result['cosine']:.3f}** on "
        f"{result['test']} others (goal: at least 0.98)."
    )
    return Section("Embeddings", [], [], note)


def _arms(recall: Recall, cells: Sequence[Cell], arms: Sequence[Arm]) -> Section:
    tasks = list(dict.fromkeys(task for cell in cells for task in cell.tasks))
    rows = []
    for cell in cells:
        for arm in arms:
            for way in arm.repairs:
                costs = [lost(recall, task, "test", cell.name, arm.name, way) for task in tasks]
                if any(costs):
                    shown = [str(cost) if cost is not None else "" for cost in costs]
                    rows.append([cell.name, arm.name, REPAIRS[way], "yes" if arm.labels else "no", *shown])
    note = "*Not rotated*: Q/K dims chosen by `snp`, all else by `activation`, no basis is changed."
    head = ["cut", "how", "repair", "labels", *(f"{task}, points lost" for task in tasks)]
    return Section("Every arm", head, rows, note, texts=4)


def _ways(recall: Recall, cells: Sequence[Cell], arms: Sequence[Arm]) -> Section | None:
    rows = []
    for cell, arm, seed in itertools.product(cells, arms, range(SEEDS)):
        for task, repair in itertools.product(cell.tasks, arm.repairs):
            result = recall(str(Case(task, seed, "test", cell.name, arm.name, repair)))
            if result is not None and result.get("ways"):
                ways = result["ways"]
                shown = [f"{ways[way]:.3f}" if way in ways else "" for way in ("none", "at once", "sweep")]
                rows.append([cell.name, arm.name, task, str(seed), *shown, result["way"]])
    if not rows:
        return None
    note = (
        "KL divergence of the outputs from those of the dense model on calibration examples set apart, by which "
        "[repair](repair.md) takes its way."
    )
    head = ["cut", "how", "task", "seed", "no repair", "at once", "front to back", "taken"]
    return Section("Repair at once or front to back", head, rows, note, texts=3)


def _sweeps(recall: Recall, cells: Sequence[Cell], arm: Arm) -> Section | None:
    rows = []
    for cell in cells:
        for task in cell.tasks:
            costs = [lost(recall, task, "validation", cell.name, arm.name, way) for way in ("once", "auto")]
            if all(costs):
                rows.append([cell.name, task, *map(str, costs)])
    if not rows:
        return None
    note = (
        "Points lost on the validation split. That a sweep gains where no norm lost units, too, was first seen on the "
        "test split of the first dense models; this is why `auto` tries it."
    )
    return Section("What sweeping by default was chosen by", ["cut", "task", "at once", "auto"], rows, note, texts=2)


def _choices(recall: Recall, choices: Sequence[Cell], scorers: Sequence[Arm], default: Arm) -> Section | None:
    tasks = list(dict.fromkeys(task for cell in choices for task in cell.tasks))
    rows = []
    for number, cell in enumerate(choices):
        for arm in scorers if number == 0 else (default,):
            for way in ("none", "once"):
                costs = [lost(recall, task, "validation", cell.name, arm.name, way) for task in tasks]
                if any(costs):
                    shown = [f"{cost.slim:.1%}, {cost.points:+.1f}" if cost is not None else "" for cost in costs]
                    scorer = arm.name if number == 0 else "activation"
                    rows.append([cell.name, scorer, REPAIRS[way], "yes" if arm.labels else "no", *shown])
    if not rows:
        return None
    note = (
        "Accuracy on the validation split of the first dense model, and points lost. The test split had no part in it."
    )
    head = ["cut", "scorer", "repair", "labels", *tasks]
    return Section("What the defaults were chosen by", head, rows, note, texts=4)


def _plot(recall: Recall, cells: Sequence[Cell], arms: Sequence[Arm], path: Path) -> bool:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = [(cell, task, cost) for cell, task, _, cost in _measured(recall, cells, arms) if cost is not None]
    if not known:
        return False
    figure, axis = pyplot.subplots(figsize=(8, 0.6 + 0.32 * len(known)), layout="constrained")
    rows = np.arange(len(known))[::-1]
    points, halves = [cost.points for *_, cost in known], [100 * cost.half for *_, cost in known]
    axis.errorbar(points, rows, xerr=halves, fmt="o", color="C0", label="points lost, 95 % interval")
    goals = [cell.goal if cell.goal is not None else np.nan for cell, *_ in known]
    axis.plot(goals, rows, "|", color="C3", markersize=12, markeredgewidth=2, label="goal")
    axis.set_yticks(rows, [f"{cell.name}, {task}" for cell, task, _ in known], fontsize=8)
    axis.axvline(0, color="0.7", linewidth=1)
    axis.set_xlabel("points of accuracy lost on the test split")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True
