"""Damaged and hostile input for the command line: counts tracebacks, hangs, crashes and runs that take too much memory.

    python -m benchmarks.fuzz                          # 10,000 cases
    python -m benchmarks.fuzz --cases 400 --seed 1
    python -m benchmarks.fuzz --log cases.jsonl --markdown docs/bad-input.md   # goes on where it was stopped
    python -m benchmarks.fuzz --only 1234 --keep DIR   # one case again, its files kept, its traceback shown

Every case is made from the seed and its number alone. Two thirds are mutants of small models, the others plans, ratio
files, data, tokenizers, caches and command lines. They run in worker processes, many in each, which are watched from
outside: a case that takes too long or too much memory takes its worker with it.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import onnx

from benchmarks.fuzz_files import FILES, examples, gather
from benchmarks.fuzz_models import models
from benchmarks.fuzz_mutants import mutate
from benchmarks.harness import Records, Section, publish, study_parser

FAILURES = ("traceback", "hang", "memory", "crash")
STOPPED = FAILURES[1:]
"""What ends a worker with its case."""

MODELS_SHARE = 2 / 3
TIMEOUT = 60.0
"""Seconds of processor time; a case that takes longer hangs. A trial of an endless loop is ended after 20."""

PATIENCE = 300.0
"""Seconds in which a case must take a second of processor time: else it waits for what never comes."""

LOOK = 1.0
"""No more than that counts between two looks at a case: whoever stops all of this stops the clock."""

MEMORY = 4 << 30
"""Bytes of resident memory that no case may need."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        number: Of the case.
        kind: What was damaged: the name of a model, or of a function of `fuzz_files`.
        ending: "done", "refused", "traceback", "hang", "memory" or "crash".
        detail: Where it was raised, what ended it, or the message.
    """

    number: int
    kind: str
    ending: str
    detail: str = ""


@dataclass
class Worker:
    """A process that runs cases one after the other."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    number: int = -1
    since: float = 0.0
    worked: float = 0.0
    looked: float = 0.0
    waited: float = 0.0
    moved: float = 0.0

    @staticmethod
    def start(seed: int, folder: Path) -> Worker:
        """Start one, and wait until it has imported everything."""
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(there, seed, folder), daemon=True)
        process.start()
        there.close()
        here.recv()
        return Worker(process, here)

    def take(self, number: int) -> None:
        """Begin a case."""
        self.number, self.since, self.worked = number, time.monotonic(), _worked(self.process.pid or 0)
        self.looked, self.waited, self.moved = self.since, 0.0, 0.0
        self.pipe.send(number)

    def ended(self, seed: int) -> Outcome | None:
        """How its case ended, if it did; a case that must be stopped ends the worker with it."""
        kind = random.Random(f"{seed}/{self.number}")
        try:
            if self.pipe.poll():
                outcome: Outcome = self.pipe.recv()
                return outcome
        except (EOFError, OSError):
            self.process.join(5)
            return Outcome(self.number, _kind(kind), "crash", f"exit code {self.process.exitcode}")
        now, worked = time.monotonic(), _worked(self.process.pid or 0) - self.worked
        self.waited += min(now - self.looked, LOOK)
        self.looked = now
        if worked - self.moved >= 1:
            self.moved, self.waited = worked, 0.0
        if worked > TIMEOUT or self.waited > PATIENCE:
            self.process.kill()
            what = f"after {now - self.since:.0f} s, {worked:.0f} of them at work"
            return Outcome(self.number, _kind(kind), "hang", what)
        if (size := _resident(self.process.pid or 0)) > MEMORY:
            self.process.kill()
            return Outcome(self.number, _kind(kind), "memory", f"{size / 2**30:.1f} GB")
        return None


CONTEXT = multiprocessing.get_context("spawn")


def run(numbers: Iterable[int], seed: int, *, workers: int = 2, seconds: float = math.inf) -> Iterator[Outcome]:
    """Run cases, until the time is over; outcomes come in the order in which they end."""
    left, until = iter(numbers), time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        pool = [Worker.start(seed, Path(tempfile.mkdtemp(dir=folder))) for _ in range(workers)]
        try:
            while pool:
                for worker in list(pool):
                    if worker.number >= 0 and (outcome := worker.ended(seed)) is not None:
                        worker.number = -1
                        yield outcome
                        if outcome.ending in STOPPED:
                            worker.process.join()
                            pool[pool.index(worker)] = Worker.start(seed, Path(tempfile.mkdtemp(dir=folder)))
                            continue
                    if worker.number < 0:
                        number = next(left, None) if time.monotonic() < until else None
                        if number is None:
                            pool.remove(worker)
                            worker.process.kill()
                        else:
                            worker.take(number)
                wait([worker.pipe for worker in pool], timeout=0.1)
        finally:
            for worker in pool:
                worker.process.kill()


def _resident(process: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _worked(process: int) -> float:
    """Seconds of processor time that a process has taken."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


# ---- in a worker ----------------------------------------------------------------------------------------------------


def _work(pipe: Connection, seed: int, folder: Path) -> None:
    """Run the cases that come, each in the folder, emptied and filled anew."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ONNX Runtime tells everybody what it thinks of a mutant
    os.environ.pop("PRUNEGRAPH_STRICT", None)  # as a user runs it
    os.environ |= {"OMP_NUM_THREADS": "1", "PRUNEGRAPH_CACHE": str(folder / "case" / "cache")}
    basis = _basis(folder)
    pipe.send(None)
    while True:
        number = pipe.recv()
        pipe.send(run_case(number, seed, basis, folder / "case"))


def run_case(number: int, seed: int, basis: Path, folder: Path) -> Outcome:
    """Run one case in a folder that is a copy of another."""
    from typer.testing import CliRunner

    from prunegraph.cli import app

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(basis, folder)
    draw = random.Random(f"{seed}/{number}")
    kind = _kind(draw)
    here = os.getcwd()
    os.chdir(folder)
    try:
        result = CliRunner().invoke(app, _arguments(kind, folder, draw), prog_name="prunegraph")
    finally:
        os.chdir(here)
    error = result.exception
    if error is None or isinstance(error, SystemExit):
        ending = {0: "done", 1: "refused", 2: "refused"}.get(result.exit_code, "traceback")
        message = next((line for line in result.stderr.splitlines() if line.startswith("error:")), "")[:200]
        return Outcome(number, kind, ending, f"exit code {result.exit_code}" if ending == "traceback" else message)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "prunegraph" in Path(frame.filename).parts] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return Outcome(number, kind, "traceback", f"{type(error).__name__} in {place}: {str(error)[:100]}")


def _kind(draw: random.Random) -> str:
    """What a case damages; the first that is drawn for it."""
    share = draw.random()
    names = list(models()) if share < MODELS_SHARE else [function.__name__ for function in FILES]
    return draw.choice(names)


def _arguments(kind: str, folder: Path, draw: random.Random) -> list[str]:
    """Prepare a case, and say what is to be run."""
    for function in FILES:
        if function.__name__ == kind:
            return function(folder, draw)
    model = models()[kind]()
    examples(model, folder / "data.npz")
    onnx.save(model, folder / "model.onnx")
    (folder / "weights").write_bytes(bytes(4096))
    (folder / "mutant.onnx").write_bytes(mutate(model, draw))
    commands = (
        ["explain", "mutant.onnx", "-v"],
        ["prune", "mutant.onnx", "-o", "out.onnx"],
        ["prune", "mutant.onnx", "-o", "out.onnx", "--ratio", "hidden=0.5", "--ratio", "ffn=0.5"],
        ["prune", "mutant.onnx", "-o", "out.onnx", "--budget", "macs=0.6", "--json"],
        ["explain", "mutant.onnx", "--json"],
        ["verify", "mlp.onnx", "mutant.onnx", "--plan", "slim.plan.json"],
    )
    data, out = ["--data", "data.npz"], ["-o", "out.onnx"]
    with_data = (
        ["bench", "mutant.onnx", "--rounds", "10", "--max-seconds", "2"],
        ["prune", "mutant.onnx", *out, "--scorer", draw.choice(("activation", "obs", "taylor")), *data],
        ["prune", "mutant.onnx", *out, "--repair", "lstsq", *data],
        ["finetune", "mutant.onnx", *out, "--epochs", "1", *data],
        ["finetune", "mutant.onnx", *out, "--epochs", "1", "--teacher", "model.onnx", *data],
        ["evaluate", "model.onnx", "mutant.onnx", "--metric", draw.choice(("auto", "cosine", "macro-f1")), *data],
    )
    return draw.choice((*commands[:1], *commands[1:2] * 4, *commands[2:], *with_data))


def _basis(folder: Path) -> Path:
    """A folder with whole files, for cases to damage."""
    from typer.testing import CliRunner

    from benchmarks.fuzz_files import PRUNE, reader
    from prunegraph.cli import app

    basis = folder / "basis"
    basis.mkdir(parents=True)
    here = os.getcwd()
    os.chdir(basis)
    before = os.environ["PRUNEGRAPH_CACHE"]
    try:
        os.environ["PRUNEGRAPH_CACHE"] = str(basis / "cache")
        onnx.save(models()["mlp"](), "mlp.onnx")
        onnx.save(reader(), "text.onnx")
        for arguments in (["prune", "mlp.onnx", "-o", "slim.onnx"], gather(basis)):
            result = CliRunner().invoke(app, arguments, prog_name="prunegraph")
            if result.exit_code:
                raise RuntimeError(f"{' '.join(arguments)}: {result.output}") from result.exception
        (basis / PRUNE[-1]).unlink()
    finally:
        os.environ["PRUNEGRAPH_CACHE"] = before
        os.chdir(here)
    return basis


# ---- the command ----------------------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> Section:
    """How cases ended, by what was damaged."""
    rows = []
    names = [("mutants of models", set(models())), *((f.__name__.replace("_", " "), {f.__name__}) for f in FILES)]
    for name, kinds in [*names, ("all", {outcome.kind for outcome in outcomes})]:
        count = Counter(outcome.ending for outcome in outcomes if outcome.kind in kinds)
        numbers = (count.total(), *(count[ending] for ending in ("done", "refused", *FAILURES)))
        rows.append((name, *(f"{number:,}" for number in numbers)))
    return Section("", ("", "cases", "done", "refused", *FAILURES), rows)


def _all_outcomes(options: argparse.Namespace, records: Records | None) -> Iterator[Outcome]:
    """Outcomes of earlier runs, and then those of the cases that are left."""
    names = {number: f"{options.seed}/{number}" for number in range(options.cases)}
    numbers = []
    for number, name in names.items():
        record = records.recall(name) if records is not None else None
        if record is None:
            numbers.append(number)
        else:
            yield Outcome(**record)
    for outcome in run(numbers, options.seed, workers=options.workers, seconds=options.seconds):
        if records is not None:
            records.keep(names[outcome.number], asdict(outcome))
        yield outcome


def main() -> None:
    """Run what the command line asks for; exits with 1 if a case failed."""
    parser = study_parser("benchmarks.fuzz", __doc__, page=True)
    parser.add_argument("--cases", type=int, default=10_000, metavar="N")
    parser.add_argument("--seconds", type=float, default=math.inf, metavar="S", help="begin no case after so many")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep outcomes here; what is there is not run again")
    parser.add_argument("--only", type=int, metavar="N", help="one case, here")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --only: leave its files there")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["PRUNEGRAPH_CACHE"] = str(Path(folder) / "case" / "cache")
            case = options.keep or Path(folder) / "case"
            print(run_case(options.only, options.seed, _basis(Path(folder)), case.absolute()))
        return
    outcomes = list(_all_outcomes(options, Records(options.log) if options.log else None))
    summary = Section("", (), (), f"Seed {options.seed}, {len(outcomes):,} cases:")
    publish("fuzz", [summary, table(outcomes)], options.markdown)
    failures = {f"{o.ending}: {o.kind}: {o.detail}": o.number for o in reversed(outcomes) if o.ending in FAILURES}
    print(*(f"{number}: {what}" for what, number in failures.items()), sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
