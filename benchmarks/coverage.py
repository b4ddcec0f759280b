"""The coverage table: every architecture of the zoo, from every exporter and optimizer, pruned with no hints.

    python -m benchmarks.coverage [NAME ...] [--folder build/zoo] [--markdown docs/coverage.md] [--no-peers]

Needs the extras `[zoo]` and `[peers]`. Every case has a child process of its own and 120 seconds; its result is kept
beside the models, so that a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.coverage_case import VARIANTS

TIMEOUT = 120
PEERS = ("torch-pruning", "onnxsim")
Case = tuple[str, str]
"""A model file's stem, and the variant or peer."""


def run(file: Path, what: str) -> dict[str, Any]:
    """One case, from the cache if it has been run."""
    cache = file.parent / "results" / f"{file.stem}.{what.replace(' ', '_')}.json"
    if cache.exists():
        return dict(json.loads(cache.read_text()))
    module = "benchmarks.coverage_peer" if what in PEERS else "benchmarks.coverage_case"
    try:
        child = subprocess.run(
            [sys.executable, "-m", module, str(file), what], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        lines = child.stdout.strip().splitlines()
        record = json.loads(lines[-1]) if lines else {"failure": (child.stderr.strip().splitlines() or ["died"])[-1][:200]}
    except subprocess.TimeoutExpired:
        record = {"failure": f"took longer than {TIMEOUT} s"}
    cache.parent.mkdir(exist_ok=True)
    cache.write_text(json.dumps(record))
    return dict(record)


def run_all(files: Iterable[Path], whats: Iterable[str], jobs: int) -> dict[Case, dict[str, Any]]:
    """All cases, two at a time, with progress."""
    cases = [(file, what) for file in files for what in whats]
    with Progress() as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("coverage", total=len(cases))

        def one(case: tuple[Path, str]) -> tuple[Case, dict[str, Any]]:
            record = run(*case)
            progress.advance(task)
            return (case[0].stem, case[1]), record

        return dict(pool.map(one, cases))


def passed(record: dict[str, Any]) -> bool:
    """Pruned, proven, inputs and outputs as they were."""
    stages = [stage for stage in ("half", "hidden") if f"{stage} params" in record]
    return bool(stages) and all(record[f"{s} io"] and record[f"{s} error"] <= 1e-4 for s in stages)


def render(results: dict[Case, dict[str, Any]], whats: list[str], caption: str) -> str:
    """The page."""
    stems = list(dict.fromkeys(stem for stem, _ in results))
    lines = ["# Coverage", "", __doc__.split("\n")[0].strip(), "", *_summary(results, whats), ""]
    lines += ["A cell holds the share of parameters removed (half of every exact kind) and the largest error against the masked"]
    lines += ["original, relative to the output's scale, the hidden stage included; `(0.25 hidden: …)` its share of parameters.", ""]
    lines += [f"| model | groups | {' | '.join(whats)} |", "|---|---|" + "---|" * len(whats)]
    for stem in stems:
        groups = results[stem, VARIANTS[0]].get("groups", {})
        cells = [_cell(results[stem, what]) for what in whats]
        lines.append(f"| {stem} | {', '.join(f'{n} {kind}' for kind, n in groups.items()) or '-'} | {' | '.join(cells)} |")
    lines += ["", "## What stays whole, and why", "", "| model | length: first reason (node) |", "|---|---|"]
    for stem in stems:
        held = results[stem, VARIANTS[0]].get("pins", {})
        lines.append(f"| {stem} | {'; '.join(f'{length}: {why}' for length, why in held.items()) or '-'} |")
    return "\n".join([*lines, "", caption, ""])


def _summary(results: dict[Case, dict[str, Any]], whats: list[str]) -> list[str]:
    lines = ["| | files | pruned and equal | failed | not made by the other tool |", "|---|---:|---:|---:|---:|"]
    for what in whats:
        records = [record for (_, w), record in results.items() if w == what]
        absent = sum("not made" in record.get("failure", "") for record in records)
        good = sum(map(passed, records))
        lines.append(f"| {what} | {len(records)} | {good} | {len(records) - absent - good} | {absent} |")
    return lines


def _cell(record: dict[str, Any]) -> str:
    if "failure" in record:
        return str(record["failure"]).replace("|", "\\|")
    if "half refused" in record:
        return f"refused: {record['half refused']}"
    before, after = record["half params"]
    error = max(record.get(f"{stage} error", 0.0) for stage in ("half", "hidden"))
    hidden = record.get("hidden params")
    more = f" (0.25 hidden: -{1 - hidden[1] / hidden[0]:.0%})" if hidden else ""
    return f"-{1 - after / before:.0%}{more}, {error:.0e}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="models of the zoo; all that the folder has without")
    parser.add_argument("--folder", type=Path, default=Path("build/zoo"), help="made by python -m benchmarks.zoo FOLDER")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    options = parser.parse_args()
    files = sorted(f for f in options.folder.glob("*.onnx") if not options.names or f.stem in options.names)
    whats = [*options.variants, *(() if options.no_peers else PEERS)]
    results = run_all(files, whats, options.jobs)
    import onnxruntime

    text = render(results, whats, f"onnxruntime {onnxruntime.__version__}; every file at a batch and length not probed with.")
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    print("\n".join(_summary(results, whats)))


if __name__ == "__main__":
    main()
