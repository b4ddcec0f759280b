"""The second zoo: small models with random weights as exporters and graph tools write them, pruned with no hints.

    python -m benchmarks.exporters [EXPORTER ...] [--environments FOLDER] [--markdown docs/exporters.md]

Every exporter has an environment of its own under `--environments`, made when a model is to be written, with pinned
versions (`benchmarks/exporters/environments.py`; together about 5 GB). One that is there is taken as it is; with
`--remove` it goes when its models are written. Every model is exported by a process of that environment, every file
pruned by one of its own; what was done is kept in `FOLDER/records.jsonl`, so that a run that was stopped goes on where
it stopped. Needs the extra `[zoo]`, and torchvision.
"""

from __future__ import annotations

import fnmatch
import shutil
import sys
from pathlib import Path

from benchmarks.exporters.cases import Cases, make_files, prune_file
from benchmarks.exporters.environments import EXPORTERS, install
from benchmarks.exporters.make import models_of
from benchmarks.exporters.page import sections
from benchmarks.harness import Records, publish, run_cases, study_parser, warm


def main() -> None:
    """Install, export, prune, and write the page."""
    parser = study_parser("benchmarks.exporters", __doc__, page=True)
    parser.add_argument("exporters", nargs="*", help="exporters; all without")
    parser.add_argument("--environments", type=Path, default=Path("build/environments"))
    parser.add_argument("--folder", type=Path, default=Path("build/exporters"), help="for files and records")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models by name")
    parser.add_argument("--first", type=int, metavar="N", help="no more than N models of each exporter")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once (default 2)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one case (default 300)")
    parser.add_argument("--recorded", action="store_true", help="run nothing: the tables of what has been run")
    parser.add_argument("--again", action="store_true", help="run again what failed")
    parser.add_argument("--remove", action="store_true", help="remove environments that are no longer needed")
    options = parser.parse_args()
    names = options.exporters or list(EXPORTERS)
    if unknown := set(names) - set(EXPORTERS):
        parser.error(f"no such exporter: {', '.join(sorted(unknown))}; there are {', '.join(EXPORTERS)}")
    records = Records(options.folder / "records.jsonl")
    if options.recorded:
        publish("exporters", sections(*_recorded(records, names)), options.markdown)
        return
    missing: dict[str, str] = {}
    made: Cases = {}
    for k, name in enumerate(names):
        environment = EXPORTERS[name][1]
        models = fnmatch.filter(models_of(name), options.only)[: options.first]
        known = {model: records.recall(f"{name}/{model}: export", again=options.again) for model in models}
        made |= {(name, model): record for model, record in known.items() if record is not None}
        todo = [model for model, record in known.items() if record is None]
        if todo and (why := install(options.environments, environment)):
            missing[name], todo = why, []
        for case, record in make_files(options.environments, options.folder, name, todo, options.timeout).items():
            made[case] = records.keep(f"{'/'.join(case)}: export", record)
        if options.remove and environment not in {EXPORTERS[later][1] for later in names[k + 1 :]}:
            shutil.rmtree(options.environments / environment, ignore_errors=True)
    warm("benchmarks.coverage_case", "prunegraph.pipeline", "prunegraph.passes.prove")
    files = [(name, file) for (name, _), record in made.items() for file in record.get("files", ())]
    pruned = run_cases(
        "prune",
        files,
        records,
        lambda case: (prune_file, (options.folder / case[0] / case[1],)),
        name="/".join,
        jobs=options.jobs,
        timeout=options.timeout,
        again=options.again,
    )
    publish("exporters", sections(made, pruned, missing), options.markdown)


def _recorded(records: Records, names: list[str]) -> tuple[Cases, Cases, dict[str, str]]:
    """What has been written, what has been pruned, and the exporters of which nothing has."""
    made: Cases = {}
    pruned: Cases = {}
    for name in names:
        for model in models_of(name):
            record = records.recall(f"{name}/{model}: export") or {}
            files = {(name, file): records.recall(f"{name}/{file}") for file in record.get("files", ())}
            done = {case: each for case, each in files.items() if each is not None}
            if done or "failure" in record:
                made[name, model] = record
            pruned |= done
    known = {name for name, _ in made}
    return made, pruned, {name: "left out of this run" for name in names if name not in known}


if __name__ == "__main__":
    sys.exit(main())
