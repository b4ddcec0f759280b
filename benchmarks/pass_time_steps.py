"""What `benchmarks.pass_time` measures, each step in a process of its own."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import Record

VIT = "vit_base_patch16_224"

Seconds = tuple[float, float]
"""By the clock on the wall, and by the processor for the main thread."""


def peak() -> int:
    """The most bytes that this process has ever held in memory, pages of mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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

    meter = Meter()
    graph = analyze_source(file, Scope(), meter)
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
    model = timm.create_model(VIT, pretrained=False).eval()
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


def vit(file: Path) -> Record:
    """Export the ViT with a dynamic batch by the dynamo exporter."""
    import timm
    import torch

    from benchmarks.zoo.model import ZooModel, export, randomize

    torch.set_num_threads(1)
    module = randomize(timm.create_model(VIT, pretrained=False).eval())
    inputs = {"x": torch.randn(2, 3, 224, 224)}
    export(ZooModel(module, inputs, {"x": {0: "batch"}}), "dynamo", file)
    return {}


def decoder(file: Path, layers: int | None = None) -> Record:
    """Write the large decoder, or a narrow one of so many layers."""
    from benchmarks.zoo.decoder import LARGE, narrow, write_decoder

    write_decoder(narrow(layers) if layers else LARGE, file)
    return {}
