"""One cell of the coverage table for another tool: the same model, half of everything, no hints.

Needs the extras `[zoo]` and `[peers]`. onnxsim gets the file, as its documentation says simplified first. Torch-Pruning
gets the module that the file was exported from, and runs as its README does. Neither has a masked original to compare
with, so what they make is run, its shapes are compared, and its values are not checked.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from benchmarks.harness import Record, reason
from benchmarks.judge import reference
from prunegraph.analysis.cost import count_parameters
from prunegraph.analyzed import load_and_analyze
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run

RATIO = 0.5
PEERS = ("torch-pruning", "onnxsim")
HEADS = ("head", "kv_group")
SIZES = {"batch": 3, "row": 17}


def run_peer(file: Path, peer: str) -> Record:
    """Let a tool prune the model of a file, and say what came of it."""
    start = time.process_time()
    try:
        record = {"torch-pruning": torch_pruning, "onnxsim": onnxsim}[peer](file)
    except Exception as error:
        record = {"failure": reason(error)}
    return record | {"seconds": round(time.process_time() - start, 2)}


def onnxsim(file: Path) -> Record:
    """Structured pruning and attention-head pruning of onnxsim, one after the other."""
    from onnxsim import pruning, simplify

    original = onnx.load(file)
    simple, _ = simplify(original)
    slim = pruning.apply_structured_pruning(simple, RATIO)
    headless = pruning.apply_attention_head_pruning(slim, RATIO)
    whole, before_heads, after = (
        count_parameters(ir.serde.deserialize_model(model).graph) for model in (original, slim, headless)
    )
    heads = _heads(slim) - _heads(headless) if after < before_heads else 0
    record: Record = {"params": [whole, after], "heads": heads, "io": _signature(original) == _signature(headless)}
    return record | _runs(original, headless)


def _heads(model: Any) -> int:
    """How many heads a file has, as far as the analysis of this package sees them."""
    return sum(math.prod(group.shape) for group in load_and_analyze(model).analysis.groups if group.kind in HEADS)


def _signature(model: Any) -> list[tuple[str, int, list[int | str]]]:
    def dims(tensor: Any) -> list[int | str]:
        return [d.dim_param or d.dim_value for d in tensor.shape.dim]

    values = (*model.graph.input, *model.graph.output)
    return [(v.name, v.type.tensor_type.elem_type, dims(v.type.tensor_type)) for v in values]


def _runs(original: Any, slim: Any) -> Record:
    """Whether ONNX Runtime runs the file, and to the shapes of the original, at sizes of no export."""
    try:
        feeds, expected = reference(ir.serde.deserialize_model(original), SIZES)
    except CannotRun:
        return {"failure": "ONNX Runtime does not run the original"}
    try:
        with open_session(ir.serde.deserialize_model(slim)) as session:
            outputs = run(session, feeds)
    except CannotRun as reason:
        return {"failure": f"ONNX Runtime: {reason}"}
    return _shapes([a.shape for a in expected], [a.shape for a in outputs])


def _shapes(expected: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> Record:
    wrong = [f"{list(a)} became {list(b)}" for a, b in zip(expected, outputs, strict=True) if tuple(a) != tuple(b)]
    return {"failure": f"output {wrong[0]}"} if wrong else {}


def torch_pruning(file: Path) -> Record:
    """The quick start of Torch-Pruning's README on the module: group magnitude, ratio 0.5, output layers ignored."""
    import torch
    import torch_pruning as tp

    from benchmarks.zoo.exports import ZOO, build, grown
    from benchmarks.zoo.model import export

    exporter = "dynamo" if file.stem in ZOO else "legacy"
    model = build(file.stem.removesuffix("_legacy"))
    module, inputs = model.module.eval(), tuple(model.inputs.values())
    calls = (inputs, tuple(grown(model).values()))
    with torch.no_grad():
        expected = [module(*call).shape for call in calls]
    ignored = [layer for layer in module.modules() if _width(layer) in set(expected[0][1:])]
    before = sum(p.numel() for p in module.parameters())
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    tp.pruner.BasePruner(module, inputs, importance=importance, pruning_ratio=RATIO, ignored_layers=ignored).step()
    record: Record = {"params": [before, sum(p.numel() for p in module.parameters())], "io": True}
    try:
        with torch.no_grad():
            shapes = [module(*call).shape for call in calls]
    except Exception as error:
        return record | {"failure": f"forward: {reason(error)}"}
    record |= _shapes(expected, shapes)
    if "failure" in record:
        return record
    with tempfile.TemporaryDirectory() as folder:
        export(model, exporter, path := Path(folder) / "model.onnx")
        return record | {"heads": _heads(file) - _heads(onnx.load(path))}


def _width(layer: Any) -> int | None:
    """Output features of a layer that could make the model's output; the README knows its layer by the class count."""
    import torch

    if isinstance(layer, torch.nn.Linear):
        return int(layer.out_features)
    return int(layer.out_channels) if isinstance(layer, torch.nn.Conv2d) else None
