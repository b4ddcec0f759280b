"""The coverage table: every architecture of the zoo, from every exporter and optimizer, pruned with no hints.

    python -m benchmarks.coverage [NAME ...] [--folder build/zoo] [--markdown docs/coverage.md] [--no-peers]

Needs the extras `[zoo]` and `[peers]`, and torchvision. Models that the folder lacks are exported first. Every case has
a child process of its own and 120 seconds; its result is kept in `FOLDER/results.jsonl`, so that a run that was stopped
goes on where it stopped. `--again` tries once more what failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from benchmarks.coverage_case import VARIANTS, run_case
from benchmarks.coverage_page import Results, render, summary
from benchmarks.coverage_peer import PEERS, run_peer
from benchmarks.harness import Records, run_cases, study_parser, warm, write_page
from prunegraph.bench.environment import cpu_model

EXPORTERS = ("dynamo", "legacy")
WARM = (
    "benchmarks.zoo.exports",
    "benchmarks.coverage_peer",
    "onnxruntime.transformers.optimizer",
    "torch._dynamo",
    "onnxscript",
)
"""What most cases import."""
Case = tuple[str, str]
"""A model file's stem, and the variant, the peer, or `export`."""
WHOLE: Case = ("whole", "run")
"""What is kept of a run that did everything itself: how long it took, and where."""


def stem_of(name: str, exporter: str) -> str:
    """Name of the file that an exporter writes for a model, without its suffix."""
    return name if exporter == "dynamo" else f"{name}_{exporter}"


def export_all(
    folder: Path, records: Records, names: Sequence[str], jobs: int, timeout: float, *, again: bool
) -> Results:
    """Export what is missing, and return why some files cannot be made."""
    from benchmarks.zoo.exports import make

    failures: Results = {}
    for exporter in EXPORTERS:
        absent = [name for name in names if not (folder / f"{stem_of(name, exporter)}.onnx").exists()]
        cases = {name: (stem_of(name, exporter), "export") for name in absent}
        failures |= {c: known for c in cases.values() if (known := records.recall(name_of(c), again=again))}
        todo = [name for name, case in cases.items() if case not in failures]
        with Progress() as progress:
            task = progress.add_task(f"export, {exporter}", total=len(todo))
            for outcome in make(folder, todo, [exporter], timeout, jobs):
                progress.advance(task)
                if outcome.failure:
                    case = cases[outcome.name]
                    failures[case] = records.keep(name_of(case), {"failure": outcome.failure})
    return failures


def name_of(case: Case) -> str:
    """What the result of a case is kept under."""
    return f"{case[0]}: {case[1]}"


def all_cases(folder: Path, names: Sequence[str], variants: Sequence[str], peers: Sequence[str]) -> list[Case]:
    """Every variant of every file; every peer once a model, on the dynamo exporter's file if there is one."""
    stems = [stem_of(name, exporter) for name in names for exporter in EXPORTERS]
    there = [stem for stem in stems if (folder / f"{stem}.onnx").exists()]
    ours = [(stem, variant) for variant in variants for stem in there]
    firsts = [next((s for e in EXPORTERS if (s := stem_of(name, e)) in there), None) for name in names]
    return ours + [(stem, peer) for peer in peers for stem in firsts if stem]


def main() -> None:
    """Run the command line."""
    parser = study_parser("benchmarks.coverage", __doc__)
    parser.add_argument("names", nargs="*", help="models of the zoo; all without")
    parser.add_argument("--folder", type=Path, default=Path("build/zoo"), help="for models and results")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once (default 2)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one case (default 120)")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-export", action="store_true", help="take the models that the folder has")
    parser.add_argument("--again", action="store_true", help="run again what failed")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    options = parser.parse_args()
    folder, again = options.folder, options.again
    records = Records(folder / "results.jsonl")
    start, fresh = time.monotonic(), not options.folder.exists() and not options.names
    from benchmarks.zoo.exports import ZOO

    names = options.names or list(ZOO)
    if unknown := set(names) - set(ZOO):
        parser.error(f"not in the zoo: {', '.join(sorted(unknown))}; it has {', '.join(ZOO)}")
    warm(*WARM)
    results: Results = {}
    if not options.no_export:
        results |= export_all(folder, records, names, options.jobs, options.timeout, again=again)
    peers = () if options.no_peers else PEERS
    cases = all_cases(folder, names, options.variants, peers)
    results |= run_cases(
        "prune",
        cases,
        records,
        lambda case: (run_peer if case[1] in PEERS else run_case, (folder / f"{case[0]}.onnx", case[1])),
        name=name_of,
        jobs=options.jobs,
        timeout=options.timeout,
        again=again,
    )
    if fresh:
        took = {"minutes": (time.monotonic() - start) / 60, "jobs": options.jobs, "cases": len(cases)}
        records.keep(name_of(WHOLE), {**took, "cpu": cpu_model(), "cores": os.cpu_count()})
    if options.markdown:
        page = render(names, options.variants, peers, results, records.recall(name_of(WHOLE)))
        write_page(options.markdown, [page])
    print("\n".join(summary(options.variants, peers, results)))


if __name__ == "__main__":
    main()
