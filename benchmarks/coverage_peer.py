"""One line of the coverage table for another tool: the same model, half of everything, no hints; prints JSON.

    python -m benchmarks.coverage_peer FILE {onnxsim|torch-pruning}

Needs the extras `[zoo]` and `[peers]`. onnxsim gets the file, as its documentation says simplified first. Torch-Pruning
gets the module that the file was exported from, and runs as its README does. Neither has a masked original to compare
with, so what they make is run, its shapes are compared, and its values are not checked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RATIO = 0.5
PEERS = ("torch-pruning", "onnxsim")
HEADS = ("head", "kv_group")
RUNS = ({"batch": 3, "row": 17},)


def main() -> None:
    """Run one case."""
    file, peer = Path(sys.argv[1]), sys.argv[2]
    start = time.process_time()
    try:
        record = {"torch-pruning": torch_pruning, "onnxsim": onnxsim}[peer](file)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        record = {"failure": f"{type(error).__name__}: {lines[0][:200]}"}
    record["seconds"] = round(time.process_time() - start, 2)
    print(json.dumps(record))


def onnxsim(file: Path) -> dict[str, Any]:
    """Structured pruning and attention-head pruning of onnxsim, one after the other."""
    import onnx
    import onnx_ir as ir
    from onnxsim import pruning, simplify

    from prunegraph.analysis.cost import count_parameters

    original = onnx.load(file)
    simple, _ = simplify(original)
    slim = pruning.apply_structured_pruning(simple, RATIO)
    before_heads = count_parameters(ir.serde.deserialize_model(slim).graph)
    headless = pruning.apply_attention_head_pruning(slim, RATIO)
    after = count_parameters(ir.serde.deserialize_model(headless).graph)
    record: dict[str, Any] = {
        "params": [count_parameters(ir.serde.deserialize_model(original).graph), after],
        "heads": _heads(slim) - _heads(headless) if after < before_heads else 0,
        "io": _signature(original) == _signature(headless),
    }
    return record | _runs(original, headless)


def _heads(model: Any) -> int:
    """How many heads a file has, as far as the analysis of this package sees them."""
    from prunegraph.pipeline import find

    return sum(_count(group.shape) for group in find(model).analysis.groups if group.kind in HEADS)


def _count(shape: Sequence[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _signature(model: Any) -> list[tuple[str, int, list[int | str]]]:
    def dims(tensor: Any) -> list[int | str]:
        return [d.dim_param or d.dim_value for d in tensor.shape.dim]

    values = (*model.graph.input, *model.graph.output)
    return [(v.name, v.type.tensor_type.elem_type, dims(v.type.tensor_type)) for v in values]


def _runs(original: Any, slim: Any) -> dict[str, Any]:
    """Whether ONNX Runtime runs the file, and to the shapes of the original, at sizes of no export."""
    import onnx_ir as ir

    from prunegraph.observe.feeds import input_specs, random_feeds
    from prunegraph.observe.plans import size_plans
    from prunegraph.observe.session import CannotRun, open_session, run

    before, after = (ir.serde.deserialize_model(model) for model in (original, slim))
    specs = input_specs(before.graph)
    for plan in size_plans(specs, RUNS):
        feeds = random_feeds(specs, plan[0], 0)
        try:
            with open_session(before) as session:
                expected = run(session, feeds)
        except CannotRun:
            continue
        try:
            with open_session(after) as session:
                found = run(session, feeds)
        except CannotRun as reason:
            return {"failure": f"ONNX Runtime: {reason}"}
        return _shapes([a.shape for a in expected], [a.shape for a in found])
    return {"failure": "ONNX Runtime does not run the original"}


def _shapes(expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> dict[str, Any]:
    wrong = [f"{list(a)} became {list(b)}" for a, b in zip(expected, found, strict=True) if tuple(a) != tuple(b)]
    return {"failure": f"output {wrong[0]}"} if wrong else {}


def torch_pruning(file: Path) -> dict[str, Any]:
    """The quick start of Torch-Pruning's README on the module: group magnitude, ratio 0.5, output layers ignored."""
    import torch
    import torch_pruning as tp

    from benchmarks.zoo import ZOO, _grown, build

    model = build(file.stem if file.stem in ZOO else file.stem.removesuffix("_legacy"))
    module, inputs = model.module.eval(), tuple(model.inputs.values())
    calls = (inputs, tuple(_grown(model).values()))
    with torch.no_grad():
        expected = [module(*call).shape for call in calls]
    ignored = [layer for layer in module.modules() if _width(layer) in set(expected[0][1:])]
    before = sum(p.numel() for p in module.parameters())
    pruner = tp.pruner.BasePruner(
        module,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=ignored,
    )
    pruner.step()
    record: dict[str, Any] = {"params": [before, sum(p.numel() for p in module.parameters())], "heads": 0, "io": True}
    try:
        with torch.no_grad():
            found = [module(*call).shape for call in calls]
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return record | {"failure": f"forward: {type(error).__name__}: {lines[0][:160]}"}
    return record | _shapes(expected, found)


def _width(layer: Any) -> int | None:
    """Output features of a layer that could make the model's output; the README knows its layer by the class count."""
    import torch

    if isinstance(layer, torch.nn.Linear):
        return int(layer.out_features)
    return int(layer.out_channels) if isinstance(layer, torch.nn.Conv2d) else None


if __name__ == "__main__":
    main()
