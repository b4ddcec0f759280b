"""The cases of the study of speed: each one short, in a process of its own, and none that trains.

Those of harm and of accuracy time nothing, and may run on a machine that is busy; the others need a quiet one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import prunegraph as pg
from benchmarks.datasets import FASHION
from benchmarks.harness import Record
from benchmarks.judge import right
from benchmarks.movie import CACHE as MOVIE
from prunegraph.analysis.selection import Selection
from prunegraph.bench import compare
from prunegraph.bench.device_table import WHOLE, Cut
from prunegraph.bench.environment import environment
from prunegraph.clock import Clock
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.graph import Graph, analyze_source
from prunegraph.passes.choose.meet_time import meet_speedup
from prunegraph.passes.choose.rank import rounded_count
from prunegraph.request import Request
from prunegraph.speed import SpeedSearch, candidates, estimate_ms, find_device
from prunegraph.speed.cuts import cut_model
from prunegraph.speed.here import planned_blocks
from prunegraph.speed.measure import measure_table
from prunegraph.speed.prepare import rotated_and_scored
from prunegraph.speed.timer import Timer
from prunegraph.speed.times import Times, times_of

BUILD = Path("build/speed")
SPEEDS = (1.5, 2.0, 3.0, 4.0)
TASK_SPEEDS = (2.0, 3.0, 4.0)
PLANS = 30
ROUNDS = 100
TEXTS = 512
"""Training sentences or images that plans are made by and versions are repaired on."""

MODELS: Mapping[str, tuple[str, dict[str, int]]] = {
    "MiniLM-L6, 16 tokens": ("minilm_l6_cls", {"sequence": 16}),
    "MiniLM-L6, 128 tokens": ("minilm_l6_cls", {"sequence": 128}),
    "DeiT-Small": ("deit_small", {}),
    "MobileNetV3-Large": ("mobilenet_v3", {}),
    "ResNet-18": ("resnet18", {}),
    "a Llama of 4 layers, 128 tokens": ("llama", {"sequence": 128}),
}
"""By title the network and the size that it is timed at, one thread."""

KEYS = ("minilm16", "minilm128", "deit", "mobilenet", "resnet", "llama")
"""What the models are called in the names of cases."""

ONE_AS_EXPORTED, ONE, PLAN, PLAN_DIMS = (
    "one ratio, file as exported",
    "one ratio, faster forms",
    "by measured harm",
    "by measured harm, dims of heads too",
)
PARTS = (ONE_AS_EXPORTED, ONE, PLAN, PLAN_DIMS)


# ---- models --------------------------------------------------------------------------------------------------------


def dense(name: str) -> Path:
    """The file of a network with random weights, exported now if it is not there."""
    path = BUILD / "models" / f"{name}.onnx"
    if not path.is_file():
        import torch

        from benchmarks.zoo.full_size import FULL
        from benchmarks.zoo.model import export
        from benchmarks.zoo.native import llama

        torch.manual_seed(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        model = llama(12, 4, 1024) if name == "llama" else FULL[name]()
        export(model, "dynamo", path)
    return path


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
        return (
            model,
            pg.Data(FASHION / "train.npz", label="label", limit=TEXTS),
            pg.Data(FASHION / "test.npz", label="label"),
        )
    texts = {split: folder / f"{split}.jsonl" for split in ("train", "validation", "test")}
    judged = BUILD / f"{task}-judged.jsonl"
    judged.parent.mkdir(parents=True, exist_ok=True)
    judged.write_text("".join(texts[split].read_text(encoding="utf-8") for split in ("validation", "test")))
    tokenizer = folder / "tokenizer.json"
    return model, pg.Data(texts["train"], tokenizer, limit=TEXTS), pg.Data(judged, tokenizer, label="label")


# ---- is the promise kept, does the table foretell ------------------------------------------------------------------


def promise(title: str, speedup: float) -> Record:
    """A speed-up that is asked for, without data, and a second measurement of what came of it."""
    name, size = MODELS[title]
    path = dense(name)
    start = time.perf_counter()
    try:
        result = pg.prune_graph(path, pg.Amount(speedup=speedup, timing=size), verify=False)
    except UsageError as error:
        return {"refused": error.message, "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    speed = result.speed
    assert speed is not None
    slim = ir.to_proto(result.ir_model)
    again = compare([path, slim], names=[WHOLE, "slim"], rounds=ROUNDS, max_seconds=40, **size).results[1].ratio
    assert again is not None
    return {
        "speed": speed.to_dict(),
        "again": asdict(again),
        "seconds": seconds,
        "params": list(result.report.params),
        "macs": list(result.report.macs),
    }


def table(title: str) -> Record:
    """A latency table, and what it foretells of random plans beside what is measured of them."""
    name, size = MODELS[title]
    graph = pg.analyze(dense(name))
    amount = pg.Amount(timing=size)
    blocks, timer = planned_blocks(graph, amount), Timer("cpu", size)
    start = time.perf_counter()
    measured = measure_table(graph, blocks, timer)
    seconds = time.perf_counter() - start
    times = times_of(measured, blocks)
    device = find_device("x86-core")
    whole = estimate_ms(graph, device)
    rng = np.random.default_rng(0)
    rows = []
    for kept in _random_plans(times, rng, PLANS):
        slim = cut_model(graph, Cut("a plan", kept))
        ratio = timer.ratio(graph.original, slim, rounds=30, max_seconds=3)
        rows.append(
            {
                "measured": asdict(ratio),
                "foretold": times.ratio(kept).median,
                "roofline": whole / estimate_ms(graph, device, kept),
                "macs": _macs(graph, kept),
            }
        )
    return {"seconds": seconds, "cuts": len(measured.cuts), "plans": rows, "table": measured.to_dict()}


def _random_plans(times: Times, rng: np.random.Generator, count: int) -> Sequence[dict[str, int]]:
    """Plans that take between nothing and everything of every block, in widths that a plan may have."""
    plans = []
    for _ in range(count):
        share, kept = rng.uniform(0.1, 0.75), dict[str, int]()
        for each in times.blocks.values():
            block = each.block
            main = int(np.clip(round(block.main.units * (1 - share + rng.uniform(-0.3, 0.3))), 1, block.main.units))
            kept[block.main.id] = rounded_count(block.main, main, None) if rng.random() > 0.05 or block.least else 0
            for group in block.inner if kept[block.main.id] else ():
                if rng.random() < 0.5:
                    kept[group.id] = rounded_count(group, int(rng.integers(group.units // 4, group.units + 1)), None)
        plans.append({name: n for name, n in kept.items()})
    return plans


def _macs(graph: Graph, kept: Mapping[str, int]) -> float:
    from prunegraph.passes.choose.budget import cost

    return 1 / max(cost(graph.analysis, graph.normalized)(kept)["macs"], 1e-9)


# ---- accuracy at measured speed ------------------------------------------------------------------------------------


def search_of(task: str, seed: int, keep_form: bool = False) -> SpeedSearch:
    """The search of a task's model, with its heads turned and everything scored, as `prune --speedup` has it."""
    model, data, _ = task_files(task, seed)
    amount = pg.Amount(speedup=TASK_SPEEDS[0], timing=_timing(task), keep_form=keep_form)
    request = Request.of(amount, None, data, None, None, True)
    graph = analyze_source(model, request.scope, Clock(), data=request.data)
    chosen = candidates(graph, amount, dims=True)
    graph, scores, _ = rotated_and_scored(graph, chosen, request)
    return SpeedSearch(graph, scores, amount, request.data, graph.clock)


def _timing(task: str) -> dict[str, int]:
    return {} if task == "fashion" else {"sequence": 128}


def harm(task: str, seed: int) -> Record:
    """The harm table of a task's model, into the cache."""
    start = time.perf_counter()
    search = search_of(task, seed)
    levels = sum(len(each) - 1 for each in search.harms.values())
    return {"seconds": time.perf_counter() - start, "levels": levels, "steps": search.clock.seconds}


def plans(task: str, seed: int) -> Record:
    """Plans of every part at every speed, measured; what stays of each lies in a file."""
    record: Record = {}
    for keep_form, parts in ((True, (ONE_AS_EXPORTED,)), (False, (ONE, PLAN, PLAN_DIMS))):
        search = search_of(task, seed, keep_form)
        search.try_forms(TASK_SPEEDS[1])
        for part in parts:
            for speedup in TASK_SPEEDS:
                record[f"{part} {speedup:g}"] = _planned(search, part, speedup, task, seed)
        record["forms"] = [trial.to_dict() for trial in search.trials]
    return {"plans": record}


def _planned(search: SpeedSearch, part: str, speedup: float, task: str, seed: int) -> Record:
    make: Callable[[float], Selection] = search.one_ratio.at
    most = search.one_ratio.most
    if part in (PLAN, PLAN_DIMS):
        planner = search.planner(inner=part == PLAN_DIMS)
        make, most = search.by(planner), planner.most
    try:
        met = meet_speedup(speedup, make, search.timed, most=most)
    except PruneGraphError as error:
        return {"refused": str(error)}
    path = plan_path(task, seed, part, speedup)
    path.parent.mkdir(parents=True, exist_ok=True)
    met.best.plan.save(path)
    return {"ratio": asdict(met.best.ratio), "sure": met.sure, "tried": len(met.tried), "forms": list(search.forms)}


def plan_path(task: str, seed: int, part: str, speedup: float) -> Path:
    """Where the plan of a part lies."""
    return BUILD / "plans" / f"{task}-{seed}-{PARTS.index(part)}-{speedup:g}.json"


def accuracy(task: str, seed: int, part: str) -> Record:
    """How often the repaired slim models of one part are right, example by example, and the dense one."""
    search = search_of(task, seed)
    _, _, judged = task_files(task, seed)
    rows = {"dense": right(search.graph.original, judged.opened())}
    for speedup in TASK_SPEEDS:
        path = plan_path(task, seed, part, speedup)
        if path.is_file():
            slim = search.harm.slim(Selection.load(path))
            rows[f"{speedup:g}"] = right(slim, judged.opened())
    return {"right": {name: "".join("1" if each else "0" for each in bits) for name, bits in rows.items()}}


# ---- one case by name ----------------------------------------------------------------------------------------------

TASKS = ("binary", "five", "fashion")
SEEDS = (0, 1, 2)


def all_cases() -> dict[str, tuple[Callable[..., Record], tuple[Any, ...]]]:
    """Every case by its name, in the order of worth."""
    cases: dict[str, tuple[Callable[..., Record], tuple[Any, ...]]] = {}
    keys = dict(zip(MODELS, KEYS, strict=True))
    for title, key in keys.items():
        cases |= {f"promise:{key}:{speed:g}": (promise, (title, speed)) for speed in SPEEDS}
    cases |= {f"table:{key}": (table, (title,)) for title, key in keys.items()}
    for task in TASKS:
        for seed in SEEDS:
            cases[f"harm:{task}:{seed}"] = (harm, (task, seed))
            cases[f"plans:{task}:{seed}"] = (plans, (task, seed))
            for number, part in enumerate(PARTS):
                cases[f"accuracy:{task}:{seed}:{number}"] = (accuracy, (task, seed, part))
    return cases


def run(name: str) -> Record:
    """Run one case.

    Args:
        name: One of `all_cases`.
    """
    os.environ["PRUNEGRAPH_CACHE"] = str((BUILD / "cache" / "observations").resolve())
    work, arguments = all_cases()[name]
    start, load = time.perf_counter(), os.getloadavg()[0]
    record = work(*arguments)
    machine = {"environment": environment(), "load": load, "took": time.perf_counter() - start}
    return {**json.loads(json.dumps(record, default=float)), **machine}
