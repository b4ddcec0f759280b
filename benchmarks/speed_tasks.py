"""What is left of accuracy at measured speed: plans of every part on trained models, and what versions get right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import prunegraph as pg
from benchmarks import fashion
from benchmarks.datasets import FASHION
from benchmarks.harness import Record
from benchmarks.judge import right
from benchmarks.movie import CACHE as MOVIE
from benchmarks.movie import FROZEN
from prunegraph.analysis.selection import Selection
from prunegraph.clock import Clock
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.graph import analyze_source
from prunegraph.prepare import rotated_and_scored
from prunegraph.request import Request
from prunegraph.speed import SpeedSearch, candidates
from prunegraph.speed.select import BY_HARM, ONE_RATIO, WITH_DIMS, Candidate, judged, narrower_plans, planned, refined

BUILD = Path("build/speed")
TASKS, SEEDS = ("binary", "five", "fashion"), (0, 1, 2)
TASK_SPEEDS = (2.0, 3.0, 4.0)
TEXTS = 512
"""Training sentences or images that plans are made by and versions are repaired on."""

SEARCH_MINUTES = 2.0

TUNED = {"binary": 5400, "five": 5400, "fashion": 10700}
"""Training examples of a short fine-tune, a tenth of them held out: about 150 steps of 32 sentences or 64 images."""

PARTS = {
    "one ratio, file as exported": ONE_RATIO,
    "one ratio, faster forms": ONE_RATIO,
    "by measured harm": BY_HARM,
    "by measured harm, dims of heads too": WITH_DIMS,
    "by measured harm, residual width too": WITH_DIMS,
    f"the same with {SEARCH_MINUTES:g} minutes of local search": WITH_DIMS,
}
"""What is added part by part, and how the plans are made; the last but one is what `--speedup --data` does."""

AS_EXPORTED, WIDTHS, SEARCHED = 0, 4, 5
"""Positions of parts that are made otherwise than by one programme."""


def task_files(task: str, seed: int) -> tuple[Path, pg.Data, pg.Data]:
    """The dense model of a task, the data that plans are made by, and those that it is judged on.

    Raises:
        UsageError: it was not trained yet.
    """
    folder = (FASHION if task == "fashion" else MOVIE / task) / f"seed{seed}"
    model = folder / "model.onnx"
    if not model.is_file():
        module = "benchmarks.fashion" if task == "fashion" else f"benchmarks.movie --task {task}"
        raise UsageError(f"{model} is not there", hint=f"python -m {module} --seed {seed}")
    if task == "fashion":
        return model, pg.Data(fashion.rows("train", TEXTS)), pg.Data(fashion.rows("test"), batch_size=200)
    texts = {split: folder / f"{split}.jsonl" for split in ("train", "validation", "test")}
    judged = BUILD / f"{task}-judged.jsonl"
    judged.parent.mkdir(parents=True, exist_ok=True)
    judged.write_text("".join(texts[split].read_text(encoding="utf-8") for split in ("validation", "test")))
    tokenizer = folder / "tokenizer.json"
    return model, pg.Data(texts["train"], tokenizer, limit=TEXTS), pg.Data(judged, tokenizer, label="label")


def timing(task: str) -> dict[str, int]:
    """The size that a task is timed at, one thread."""
    return {} if task == "fashion" else {"sequence": 128}


def search_of(task: str, seed: int, keep_form: bool = False, minutes: float = 0.0) -> SpeedSearch:
    """The search of a task's model, with its heads turned and everything scored, as `prune --speedup` has it."""
    model, data, _ = task_files(task, seed)
    amount = pg.Amount(speedup=TASK_SPEEDS[0], timing=timing(task), keep_form=keep_form, search=minutes)
    request = Request.of(amount, None, data, None, None, True)
    graph = analyze_source(model, request.scope, Clock(), data=request.data)
    chosen = candidates(graph, amount, dims=True)
    graph, scores, _ = rotated_and_scored(graph, chosen, request)
    return SpeedSearch(graph, scores, amount, request.data, graph.clock)


def harm(task: str, seed: int) -> Record:
    """The harm table of a task's model, into the cache."""
    start = time.perf_counter()
    search = search_of(task, seed)
    levels = sum(len(each) - 1 for each in search.harms.values())
    return {"seconds": time.perf_counter() - start, "levels": levels, "steps": search.clock.seconds}


def plans(task: str, seed: int, part: int, speeds: Sequence[float]) -> Record:
    """Plans of one part at several speeds, measured; what stays of each lies in a file."""
    search = search_of(task, seed, part == AS_EXPORTED, SEARCH_MINUTES if part == SEARCHED else 0.0)
    search.try_forms(TASK_SPEEDS[1])
    made = {f"{speedup:g}": _planned(search, part, speedup, plan_path(task, seed, part, speedup)) for speedup in speeds}
    forms = [trial.to_dict() for trial in search.trials]
    return {"plans": made, "forms": forms, "steps": search.clock.seconds}


def _planned(search: SpeedSearch, part: int, speedup: float, path: Path) -> Record:
    name = list(PARTS.values())[part]
    more: Record = {}
    try:
        if part in (WIDTHS, SEARCHED):
            best = _least_harm(search, speedup)
            met, more["searched"] = refined(best) if part == SEARCHED else (best.met, {})
            more["width"] = dict(best.search.width)
        else:
            met = planned(search, name, speedup)
    except PruneGraphError as error:
        return {"refused": str(error)}
    path.parent.mkdir(parents=True, exist_ok=True)
    met.best.plan.save(path)
    return {"ratio": asdict(met.best.ratio), "sure": met.sure, "tried": len(met.tried), **more}


def _least_harm(search: SpeedSearch, speedup: float) -> Candidate:
    """The plan of the programme, or one with narrower residual streams."""
    whole = judged(search, WITH_DIMS, speedup)
    return min((whole, *narrower_plans(search, whole, speedup)), key=lambda candidate: candidate.rank(speedup))


def plan_path(task: str, seed: int, part: int, speedup: float) -> Path:
    """Where the plan of a part lies."""
    return BUILD / "plans" / f"{task}-{seed}-{part}-{speedup:g}.json"


def accuracy(task: str, seed: int, part: int) -> Record:
    """How often the repaired slim models of one part are right, example by example, and the dense one."""
    search = search_of(task, seed)
    _, _, data = task_files(task, seed)
    inputs = data.opened().inputs(search.graph.original)
    rows = {"dense": right(search.graph.original, inputs)}
    for speedup in TASK_SPEEDS:
        path = plan_path(task, seed, part, speedup)
        if path.is_file():
            slim = repaired(search, Selection.load(path))
            slim_path(task, seed, part, speedup).parent.mkdir(parents=True, exist_ok=True)
            ir.save(slim, slim_path(task, seed, part, speedup))
            rows[f"{speedup:g}"] = right(slim, inputs)
    return {"right": bits(rows)}


def repaired(search: SpeedSearch, plan: Selection) -> ir.Model:
    """The slim model of a plan, re-fitted, in the basis that it was made in."""
    counts = plan.counts(search.graph.groups)
    width = {group.id: counts[group.id] for group in search.width_groups if group.id in counts}
    return (search.at_width(width) if width else search).harm.slim(plan, sweep_exact=True)


def slim_path(task: str, seed: int, arm: int | str, speedup: float) -> Path:
    """Where a slim model lies: of a part, or of another tool."""
    return BUILD / "slim" / f"{task}-{seed}-{arm}-{speedup:g}.onnx"


def tuned(task: str, seed: int, arm: int | str, speedup: float) -> Record:
    """How often a slim model is right after a short fine-tune, whoever made it: the dense model is the teacher."""
    model, _, data = task_files(task, seed)
    path = slim_path(task, seed, arm, speedup)
    if not path.is_file():
        raise UsageError(f"{path} is not there", hint="run the case of its accuracy first")
    start = time.perf_counter()
    batch, frozen = (64, ()) if task == "fashion" else (32, FROZEN)
    result = pg.finetune(path, training(task, seed), teacher=model, epochs=1, lr=1e-4, batch_size=batch, freeze=frozen)
    seconds = time.perf_counter() - start
    return {"right": bits({f"{speedup:g}": right(result.ir_model, data.opened())}), "seconds": seconds}


def training(task: str, seed: int) -> pg.Data:
    """The examples of a short fine-tune."""
    if task == "fashion":
        return pg.Data(fashion.rows("train", TUNED[task]))
    folder = MOVIE / task / f"seed{seed}"
    return pg.Data(folder / "train.jsonl", folder / "tokenizer.json", label="label", limit=TUNED[task])


def bits(rows: dict[str, npt.NDArray[np.bool_]]) -> dict[str, str]:
    """What was right, a character an example."""
    return {name: "".join("1" if each else "0" for each in each_right) for name, each_right in rows.items()}
