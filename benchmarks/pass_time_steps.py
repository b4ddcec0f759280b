"""What `benchmarks.pass_time` measures, each in a process of its own: prints one line of JSON.

python -m benchmarks.pass_time_steps machine | torch-pruning | vit FILE | decoder FILE [LAYERS]
python -m benchmarks.pass_time_steps passes FILE | depths ROUNDS FILE ...
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

VIT = "vit_base_patch16_224"

Result = dict[str, Any]
Seconds = tuple[float, float]
"""By the clock on the wall, and by the processor for the main thread."""


def peak() -> int:
    """The most bytes that this process has ever held in memory, pages of mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def passes(file: str) -> Result:
    """Load, normalize, analyze, score, shrink and verify one file: seconds of each, and the peak up to its end."""
    from prunegraph.clock import Clock
    from prunegraph.graph import analyze_source
    from prunegraph.passes.choose.request import Scope

    steps: dict[str, Result] = {}
    baseline = peak()

    class Meter(Clock):
        @contextmanager
        def step(self, name: str) -> Iterator[None]:
            start = _now()
            yield
            steps[name] = {"seconds": _between(start, _now()), "peak": peak() - baseline}

    meter = Meter()
    found = analyze_source(file, Scope(), meter)
    targets = found.targets(0.5)
    result = found.apply(found.select(found.score(groups=targets.of_group), targets))
    tensors = [value.const_value for value in found.original.graph.initializers.values()]
    proof = result.report.verify
    assert proof is not None
    return {
        "weights": sum(tensor.nbytes for tensor in tensors if tensor is not None),
        "parameters": result.report.params,
        "nodes": len(found.normalized.model.graph),
        "groups": len(found.analysis.groups),
        "error": max(proof.max_rel_error, proof.normalize_error),
        "steps": steps,
    }


def depths(rounds: str, *files: str) -> Result:
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
    for turn in range(int(rounds) + 1):
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


def torch_pruning() -> Result:
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


def vit(file: str) -> Result:
    """Export the ViT with a dynamic batch by the dynamo exporter."""
    import timm
    import torch

    from benchmarks.zoo.model import ZooModel, export, randomize

    torch.set_num_threads(1)
    module = randomize(timm.create_model(VIT, pretrained=False).eval())
    inputs = {"x": torch.randn(2, 3, 224, 224)}
    export(ZooModel(module, inputs, {"x": {0: "batch"}}), "dynamo", Path(file))
    return {}


def decoder(file: str, layers: str = "") -> Result:
    """Write the large decoder, or a narrow one of so many layers."""
    from benchmarks.zoo.decoder import LARGE, narrow, write_decoder

    write_decoder(narrow(int(layers)) if layers else LARGE, Path(file))
    return {}


def machine() -> Result:
    """The machine and the versions."""
    from prunegraph.bench.environment import environment

    return {**environment(), "onnx": version("onnx"), "onnx-ir": version("onnx-ir")}


STEPS: dict[str, Callable[..., Result]] = {
    "passes": passes,
    "depths": depths,
    "torch-pruning": torch_pruning,
    "vit": vit,
    "decoder": decoder,
    "machine": machine,
}

if __name__ == "__main__":
    said = STEPS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(said))
