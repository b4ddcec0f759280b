"""Whether the torch twin of an ONNX file computes what ONNX Runtime computes, and has the gradients of its source.

    python -m benchmarks.to_torch FOLDER_OR_FILE … [--json FILE] [--markdown docs/to-torch.md]
    python -m benchmarks.to_torch --gradients [NAME …]

Inputs are random, at lengths of the script's own wherever a model leaves them open.  A file agrees if no output
differs by more than 1e-4 of its largest number (of 1, if that is smaller).  One thread, one process.

With --gradients, modules of the zoo are exported and read back, and module and twin go backward from the same random
weighting of the output.  Parameters are matched by name, or by their numbers where the exporter renamed or transposed
them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Record, Section, publish, reason, study_parser
from benchmarks.judge import reference
from prunegraph.errors import PruneGraphError
from prunegraph.export.convert import open_source
from prunegraph.export.torch_module import read_torch
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.widen import widened
from prunegraph.torch_twin import call, to_torch

TOLERANCE = 1e-4
BOUNDS = (0.0, 1e-7, 1e-6, 1e-5, TOLERANCE)
SIZES = {"batch": 3, "row": 11}
NAMES = ("bert", "llama", "t5_encoder", "convnext", "swin")

FLOOR = 1e-2
"""Of the largest gradient of all: smaller ones (that of the bias of keys is rounding alone) are compared with this."""


def main() -> None:
    """Compare all, then write what was found."""
    parser = study_parser("benchmarks.to_torch", __doc__, page=True)
    parser.add_argument("paths", nargs="*", metavar="FILE", help="files and folders, or names of the zoo")
    parser.add_argument("--gradients", action="store_true", help="compare gradients of models of the zoo")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.gradients:
        header = ("model", "output", "gradients", "parameters matched")
        rows = [gradients(name) for name in arguments.paths or NAMES]
        publish("gradients", [Section("", header, rows)], arguments.markdown)
        return
    paths = [Path(path) for path in arguments.paths]
    files = [file for path in paths for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    records = []
    for file in files:
        records.append(compare(file))
        error = "" if records[-1]["error"] is None else f"{records[-1]['error']:.1e}"
        print(f"{'ok ' if records[-1]['ok'] else 'NOT'} {file.stem:32} {error:8} {records[-1]['why']}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1), encoding="utf-8")
    publish("to_torch", sections(records), arguments.markdown)


# ---- outputs ---------------------------------------------------------------------------------------------------------


def compare(path: Path) -> Record:
    """One file."""
    record: Record = {"name": path.stem, "ok": False, "error": None, "why": ""}
    try:
        model = open_source(path)
        feeds, expected = reference(widened(model), SIZES)
        start = time.perf_counter()
        module = to_torch(model)
        record["build_s"] = round(time.perf_counter() - start, 2)
        record["parameters"] = sum(p.numel() for p in module.parameters())
        with torch.no_grad():
            start = time.perf_counter()
            outputs = call(module, {name: torch.tensor(array) for name, array in feeds.items()})
            record["forward_s"] = round(time.perf_counter() - start, 2)
        record |= difference(expected, [value.numpy() for value in outputs.values()])
    except CannotRun as error:
        record["why"] = f"ONNX Runtime does not run it: {error}"
    except PruneGraphError as error:
        record["why"] = error.message
    except Exception as error:
        record["why"] = reason(error)
    return record


def difference(expected: Sequence[np.ndarray[Any, Any]], actual: Sequence[np.ndarray[Any, Any]]) -> Record:
    """The largest difference, of all outputs, over the largest number of the output it is in."""
    worst, why = 0.0, ""
    for k, (a, b) in enumerate(zip(expected, actual, strict=True)):
        if a.shape != b.shape:
            return {"why": f"output {k} has the shape {b.shape}, not {a.shape}"}
        if a.size and (not np.isfinite(a).all() or not np.isfinite(b).all()):
            why = "" if np.array_equal(a, b, equal_nan=True) else f"output {k} is not finite"
            a, b = np.nan_to_num(a), np.nan_to_num(b)
        if a.size:
            largest = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            worst = max(worst, float(largest / max(1.0, np.abs(a).max())))
    return {"ok": worst <= TOLERANCE and not why, "error": worst, "why": why}


def sections(records: Sequence[Record]) -> list[Section]:
    """All files in one sentence, how many lie below which difference, and what does not agree."""
    errors = [record["error"] for record in records if record["ok"]]
    summary = (
        f"{len(errors)} of {len(records)} files agree with ONNX Runtime to 1e-4; the largest difference is "
        f"{max(errors, default=0.0):.1e}."
    )
    counts = [(f"up to {b:.0e}", str(sum(a < e <= b or e == a == 0 for e in errors))) for a, b in pairwise(BOUNDS)]
    rest = [(r["name"], str(r["why"] or r["error"])) for r in records if not r["ok"]]
    tables = [Section("", ("largest difference", "files"), counts, summary)]
    return tables + ([Section("", ("file", "why not"), rest, texts=2)] if rest else [])


# ---- gradients -------------------------------------------------------------------------------------------------------


def gradients(name: str) -> tuple[str, ...]:
    """Export a model of the zoo, read it back, and compare; differences are relative to the largest numbers."""
    from benchmarks.zoo.exports import build

    model = build(name)
    inputs = tuple(model.inputs.values())
    twin = to_torch(read_torch(model.module, inputs))
    expected, actual = model.module(*inputs), twin(*inputs)[0]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    twins = dict(twin.named_parameters())
    sources = [(key, p) for key, p in model.module.named_parameters() if p.grad is not None]
    largest = max(float(parameter.grad.abs().max()) for _, parameter in sources)
    errors = []
    for key, parameter in sources:
        gradient = _gradient(key, parameter, twins)
        if gradient is not None:
            scale = max(float(parameter.grad.abs().max()), FLOOR * largest)
            errors.append(float((gradient - parameter.grad).abs().max()) / scale)
    output = float((expected - actual).abs().max() / expected.abs().max())
    return name, f"{output:.1e}", f"{max(errors, default=0.0):.1e}", f"{len(errors)} of {len(sources)}"


def _gradient(name: str, parameter: Tensor, twins: Mapping[str, Tensor]) -> Tensor | None:
    """The gradient of the twin that holds the same numbers, in the source's layout."""
    named = [twins[name]] if name in twins else []
    for twin in (*named, *(t for t in twins.values() if t.numel() == parameter.numel())):
        if twin.grad is None or twin.numel() != parameter.numel():
            continue
        if torch.equal(twin.flatten(), parameter.flatten()):
            return twin.grad.reshape(parameter.shape)
        if twin.dim() == 2 and twin.shape[::-1] == parameter.shape and torch.equal(twin.T, parameter):
            return twin.grad.T
    return None


if __name__ == "__main__":
    main()
