"""Whether the torch twin of every ONNX file of a folder computes what ONNX Runtime computes.

    python -m benchmarks.to_torch FOLDER_OR_FILE … [--json FILE] [--markdown docs/to-torch.md]

Inputs are random, at lengths of the script's own wherever a model leaves them open.  A file agrees if no output
differs by more than 1e-4 of its largest number (of 1, if that is smaller).  One thread, one process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from benchmarks.harness import Record, Section, fill_page, reason, study_parser
from prunegraph.errors import PruneGraphError
from prunegraph.export.convert import open_source
from prunegraph.runtime.feeds import Feeds, random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.trial_sizes import size_plans
from prunegraph.runtime.widen import widened, widened_feeds
from prunegraph.torch_twin import call, to_torch

TOLERANCE = 1e-4
SIZES = {"batch": 3, "row": 11}
MARKS = ("<!-- measured: start -->", "<!-- measured: end -->")


def main() -> None:
    """Compare all files, then write what was found."""
    parser = study_parser("benchmarks.to_torch", __doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for path in _files(arguments.paths):
        records.append(compare(path))
        print(_line(records[-1]), flush=True)
    print(summary(records))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1), encoding="utf-8")
    if arguments.markdown:
        fill_page(arguments.markdown, MARKS, table(records))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.glob("*.onnx")) if path.is_dir() else [path]


def compare(path: Path) -> Record:
    """One file."""
    record: Record = {"name": path.stem, "ok": False, "error": None, "why": ""}
    try:
        model = open_source(path)
        feeds, expected = reference(model)
        start = time.perf_counter()
        module = to_torch(model)
        record["build_s"] = round(time.perf_counter() - start, 2)
        record["parameters"] = sum(p.numel() for p in module.parameters())
        with torch.no_grad():
            start = time.perf_counter()
            outputs = call(module, {name: torch.tensor(array) for name, array in widened_feeds(feeds).items()})
            record["forward_s"] = round(time.perf_counter() - start, 2)
        record |= judge(expected, [value.numpy() for value in outputs.values()])
    except CannotRun as error:
        record["why"] = f"ONNX Runtime does not run it: {error}"
    except PruneGraphError as error:
        record["why"] = error.message
    except Exception as error:
        record["why"] = reason(error)
    return record


def reference(model: ir.Model) -> tuple[Feeds, list[np.ndarray[Any, Any]]]:
    """Inputs that ONNX Runtime accepts, and what it makes of them.

    Raises:
        CannotRun: It accepts none.
    """
    refusal = CannotRun("no inputs")
    specs = input_specs(model.graph)
    for (sizes,) in size_plans(specs, (SIZES,)):
        feeds = random_feeds(specs, sizes, seed=0)
        try:
            with open_session(widened(model)) as session:
                return feeds, run(session, widened_feeds(feeds))
        except CannotRun as error:
            refusal = error
    raise refusal


def judge(expected: Sequence[np.ndarray[Any, Any]], actual: Sequence[np.ndarray[Any, Any]]) -> Record:
    """The largest difference, of all outputs, over the largest number of the output it is in."""
    worst, why = 0.0, ""
    for k, (a, b) in enumerate(zip(expected, actual, strict=True)):
        if a.shape != b.shape:
            return {"why": f"output {k} has the shape {b.shape}, not {a.shape}"}
        if a.size and (not np.isfinite(a).all() or not np.isfinite(b).all()):
            same = np.array_equal(a, b, equal_nan=True)
            why = "" if same else f"output {k} is not finite"
            a, b = np.nan_to_num(a), np.nan_to_num(b)
        if a.size:
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            worst = max(worst, float(difference / max(1.0, np.abs(a).max())))
    return {"ok": worst <= TOLERANCE and not why, "error": worst, "why": why}


def _line(record: Record) -> str:
    error = "" if record["error"] is None else f"{record['error']:.1e}"
    return f"{'ok ' if record['ok'] else 'NOT'} {record['name']:32} {error:8} {record['why']}"


def summary(records: Sequence[Record]) -> str:
    """All files in one sentence."""
    agree = [r for r in records if r["ok"]]
    worst = max((r["error"] for r in agree), default=0.0)
    return (
        f"{len(agree)} of {len(records)} files agree with ONNX Runtime to 1e-4; the largest difference is {worst:.1e}."
    )


def table(records: Sequence[Record]) -> list[str]:
    """The summary, what does not agree, and how many files lie below which difference."""
    bounds = [0.0, 1e-7, 1e-6, 1e-5, 1e-4]
    errors = [r["error"] for r in records if r["ok"]]
    counts = [(f"up to {b:.0e}", str(sum(a < e <= b or e == a == 0 for e in errors))) for a, b in pairwise(bounds)]
    lines = [summary(records), "", *Section("", ("largest difference", "files"), counts).table()]
    rest = [(r["name"], str(r["why"] or r["error"])) for r in records if not r["ok"]]
    return lines + (["", *Section("", ("file", "why not"), rest, texts=2).table()] if rest else [])


if __name__ == "__main__":
    main()
