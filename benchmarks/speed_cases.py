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
from benchmarks.harness import Record
from benchmarks.speed_peers import TOOLS, peer_accuracy, peer_ratio
from benchmarks.speed_tasks import BUILD, PARTS, SEEDS, TASK_SPEEDS, TASKS, WIDTHS, accuracy, harm, plans, tuned
from prunegraph.bench import compare
from prunegraph.bench.device_table import WHOLE, Cut
from prunegraph.bench.environment import environment
from prunegraph.errors import UsageError
from prunegraph.graph import Graph
from prunegraph.passes.choose.rank import rounded_count
from prunegraph.speed import estimate_ms, find_device
from prunegraph.speed.cuts import cut_model
from prunegraph.speed.here import planned_blocks
from prunegraph.speed.measure import measure_table
from prunegraph.speed.timer import Timer
from prunegraph.speed.times import Times, times_of

SPEEDS = (1.5, 2.0, 3.0, 4.0)
PLANS = 30
ROUNDS = 100

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


# ---- is the promise kept, does the table foretell ------------------------------------------------------------------


def promise(title: str, speedup: float, ep: str = "cpu") -> Record:
    """A speed-up that is asked for, without data, and a second measurement of what came of it."""
    name, size = MODELS[title]
    path = dense(name)
    start = time.perf_counter()
    try:
        result = pg.prune_graph(path, pg.Amount(speedup=speedup, ep=ep, timing=size), verify=False)
    except UsageError as error:
        return {"refused": error.message, "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    speed = result.speed
    assert speed is not None
    slim = ir.to_proto(result.ir_model)
    names = [WHOLE, "slim"]
    again = compare([path, slim], names=names, providers=[ep], rounds=ROUNDS, max_seconds=40, **size).results[1].ratio
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


# ---- one case by name ----------------------------------------------------------------------------------------------


def plans_case(task: str, seed: int, part: int, speed: float) -> str:
    """The name of the case that makes the plan of a part at one speed."""
    return f"plans:{task}:{seed}:{part}" + (f":{speed:g}" if part >= WIDTHS else "")


def all_cases() -> dict[str, tuple[Callable[..., Record], tuple[Any, ...]]]:
    """Every case by its name, in the order of worth."""
    cases: dict[str, tuple[Callable[..., Record], tuple[Any, ...]]] = {}
    keys = dict(zip(MODELS, KEYS, strict=True))
    for title, key in keys.items():
        cases |= {f"promise:{key}:{speed:g}": (promise, (title, speed)) for speed in SPEEDS}
    for title, key in keys.items():
        cases |= {f"openvino:{key}:{speed:g}": (promise, (title, speed, "openvino")) for speed in SPEEDS}
    cases |= {f"table:{key}": (table, (title,)) for title, key in keys.items()}
    for task in TASKS:
        for seed in SEEDS:
            cases[f"harm:{task}:{seed}"] = (harm, (task, seed))
            for part in range(len(PARTS)):
                # those that try several widths take minutes a speed
                for speeds in [TASK_SPEEDS] if part < WIDTHS else [(speed,) for speed in TASK_SPEEDS]:
                    cases[plans_case(task, seed, part, speeds[0])] = (plans, (task, seed, part, speeds))
                cases[f"accuracy:{task}:{seed}:{part}"] = (accuracy, (task, seed, part))
            for arm in (WIDTHS, *TOOLS):
                cases |= {f"tuned:{task}:{seed}:{arm}:{s:g}": (tuned, (task, seed, arm, s)) for s in TASK_SPEEDS}
            for tool in TOOLS:
                cases[f"peer:{task}:{seed}:{tool}"] = (peer_accuracy, (task, seed, tool))
        for tool in TOOLS:
            cases |= {f"tune-peer:{task}:{tool}:{s:g}": (peer_ratio, (task, tool, s)) for s in TASK_SPEEDS}
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
