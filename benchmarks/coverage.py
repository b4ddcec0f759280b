"""The coverage table: every architecture of the zoo, from every exporter and optimizer, pruned with no hints.

    python -m benchmarks.coverage [NAME ...] [--folder build/zoo] [--markdown docs/coverage.md] [--no-peers]
    python -m benchmarks.coverage --sample 8 [--markdown docs/coverage.md]

Needs the extras `[zoo]` and `[peers]`, and torchvision. Models that the folder lacks are exported first. Every case has
a child process of its own and 120 seconds; its result is kept in `FOLDER/results.jsonl`, so that a run that was stopped
goes on where it stopped. `--again` tries once more what failed. The long table lies in PAGE-table.md.
A sample takes one of so many architectures of every family, without peers, and fills a part of the page of its own.
"""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.coverage_case import VARIANTS, run_case
from benchmarks.coverage_families import families, sampled, what_stays
from benchmarks.coverage_page import USED, Case, Results, counts, failures, file_by_file
from benchmarks.coverage_peer import PEERS, run_peer
from benchmarks.harness import Records, fill_page, publish, run_cases, study_parser, warm
from prunegraph.bench.environment import cpu_model

WARM = ("benchmarks.zoo.exports", "benchmarks.coverage_peer", "onnxruntime.transformers.optimizer", "torch._dynamo")
"""What most cases import."""
WHOLE: Case = ("whole", "run")
"""What is kept of a run that did everything itself: how long it took, and where."""


def name_of(case: Case) -> str:
    """What the result of a case is kept under."""
    return f"{case[0]}: {case[1]}"


def main() -> None:
    """Run the command line."""
    parser = study_parser("benchmarks.coverage", __doc__, page=True)
    parser.add_argument("names", nargs="*", help="models of the zoo; all without")
    parser.add_argument("--folder", type=Path, default=Path("build/zoo"), help="for models and results")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once (default 2)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one case (default 120)")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--sample", type=int, metavar="N", help="one of N architectures of every family, no peers")
    parser.add_argument("--no-export", action="store_true", help="take the models that the folder has")
    parser.add_argument("--again", action="store_true", help="run again what failed")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    options = parser.parse_args()
    folder, running = options.folder, {"jobs": options.jobs, "timeout": options.timeout, "again": options.again}
    start, fresh = time.monotonic(), not (folder.exists() or options.names or options.sample)
    from benchmarks.zoo.exports import ZOO, export_missing
    from benchmarks.zoo.model import EXPORTERS, file_name

    names = options.names or (sampled(list(ZOO), options.sample) if options.sample else list(ZOO))
    if unknown := set(names) - set(ZOO):
        parser.error(f"not in the zoo: {', '.join(sorted(unknown))}; it has {', '.join(ZOO)}")
    warm(*WARM)
    records, results = Records(folder / "results.jsonl"), Results()
    if not options.no_export:
        missing = export_missing(folder, names, EXPORTERS, records, **running)
        results |= {(file.stem, "export"): record for file, record in missing.items()}
    files = {name: [folder / file_name(name, exporter) for exporter in EXPORTERS] for name in names}
    stems = {name: [file.stem for file in of if file.exists()] for name, of in files.items()}
    peers = () if options.no_peers or options.sample else PEERS
    cases = [(stem, variant) for variant in options.variants for of in stems.values() for stem in of]
    cases += [(of[0], peer) for peer in peers for of in stems.values() if of]
    results |= run_cases(
        "prune",
        cases,
        records,
        lambda case: (run_peer if case[1] in PEERS else run_case, (folder / f"{case[0]}.onnx", case[1])),
        name=name_of,
        **running,
    )
    if fresh:
        took = {"minutes": (time.monotonic() - start) / 60, "jobs": options.jobs, "cases": len(cases)}
        versions = {package: version(package) for package in (*USED, *peers)}
        records.keep(name_of(WHOLE), {**took, "cpu": cpu_model(), "cores": os.cpu_count(), "versions": versions})
    whole = None if options.sample else records.recall(name_of(WHOLE))
    first = options.variants[0]
    tables = [*counts(options.variants, peers, results, whole), families(results, first)]
    tables += [failures(options.variants, results)] if options.sample else [what_stays(results, first)]
    publish("sample" if options.sample else "coverage", tables, options.markdown)
    if options.markdown and not options.sample:
        table = options.markdown.with_stem(f"{options.markdown.stem}-table")
        rows = file_by_file(names, options.variants, peers, results, whole)
        fill_page(table, "files", [line for section in rows for line in section.lines()])


if __name__ == "__main__":
    main()
