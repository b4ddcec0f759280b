"""What the studies share: cases in child processes, a JSON line a case, runs that go on where they stopped, pages.

Exporters and optimizers crash, hang and keep state, so that no two cases may share a process. Children are forked from
a server that has imported the libraries once; imports would take longer than most cases.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from prunegraph.bench.environment import environment
from prunegraph.bench.stats import PairedRatio

Key = TypeVar("Key", bound=Hashable)
Record = dict[str, Any]

# ---- child processes -----------------------------------------------------------------------------------------------

CONTEXT = multiprocessing.get_context("forkserver")
GRACE = 10.0
"""Seconds for a child that has answered to clean up after itself."""
STOPPED = (1, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes of a child that somebody has stopped: they say nothing about the case."""


class Stopped(Exception):
    """Somebody has ended the child process from outside."""


def warm(*modules: str) -> None:
    """Import `modules` once, in the server that all later children are forked from."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # children that are ended leave locks behind
    CONTEXT.set_forkserver_preload(list(modules))


def in_child(timeout: float, work: Callable[..., Record], *args: Any) -> Record:
    """Call `work` in a process of its own.

    Args:
        timeout: Seconds after which it is ended.
        work: A function of a module; what it prints is thrown away.
        args: Its arguments; they are pickled.

    Returns:
        What it returned, or `{"failure": reason}`.

    Raises:
        Stopped: Somebody else ended the child.
    """
    here, there = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=_answer, args=(there, work, *args))
    child.start()
    there.close()
    try:
        if not here.poll(timeout):
            return {"failure": f"took longer than {timeout:.0f} s"}
        record: Record = here.recv()
        child.join(GRACE)
        return record
    except EOFError:
        child.join()
        if child.exitcode in STOPPED:
            raise Stopped from None
        return {"failure": f"exit {child.exitcode}"}
    finally:
        child.kill()
        child.join()


def _answer(there: Connection, work: Callable[..., Record], *args: Any) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    try:
        record = work(*args)
    except Exception as error:
        record = {"failure": reason(error)}
    there.send(record)


def reason(error: BaseException) -> str:
    """The type of an exception and the first line that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), '')[:240]}"


# ---- records -------------------------------------------------------------------------------------------------------


class Records:
    """What came of every case: a file of JSON lines, one added at once when a case is done; the last one counts."""

    def __init__(self, path: Path) -> None:
        """Read what earlier runs have left; a line that was cut off by a kill is as if it were not there."""
        self.path, self._lock, self._records = path, threading.Lock(), dict[str, Record]()
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        self._end = "" if text.endswith("\n") or not text else "\n"
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self._records[entry["case"]] = entry["record"]

    def recall(self, case: str, *, again: bool = False) -> Record | None:
        """The record of a case that has been run; with `again` only if it did not fail."""
        record = self._records.get(case)
        return None if record is None or (again and "failure" in record) else record

    def every(self) -> list[Record]:
        """The records of all cases, in the order in which they were first run."""
        return list(self._records.values())

    def keep(self, case: str, record: Record) -> Record:
        """Add a record."""
        line = json.dumps({"case": case, "record": record})
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{self._end}{line}\n")
            self._end = ""
            self._records[case] = record
        return record


def run_cases(
    title: str,
    cases: Iterable[Key],
    records: Records,
    work: Callable[[Key], tuple[Callable[..., Record], Sequence[Any]]],
    *,
    name: Callable[[Key], str],
    jobs: int,
    timeout: float,
    again: bool = False,
) -> dict[Key, Record]:
    """Run cases in children, `jobs` at a time, with progress; what has been run is recalled.

    Args:
        title: Beside the progress.
        cases: What is to be run.
        records: Where results are kept.
        work: By case the function that a child calls, and its arguments; an empty record is not kept.
        name: By case the name that it is kept under.
        jobs: How many children run at a time.
        timeout: Seconds for one case.
        again: Whether cases that failed are run once more.
    """
    cases = list(cases)
    with Progress() as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task(title, total=len(cases))

        def one(case: Key) -> Record:
            record = records.recall(name(case), again=again)
            if record is None:
                function, arguments = work(case)
                try:
                    record = in_child(timeout, function, *arguments)
                except Stopped:
                    record = {"failure": "stopped"}
                else:
                    if record:
                        records.keep(name(case), record)
            progress.advance(task)
            return record

        return dict(zip(cases, pool.map(one, cases), strict=True))


# ---- tables and pages ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Section:
    """One table with its title and a note below.

    Attributes:
        title: What it is about.
        header: Names of the columns.
        rows: Cells as text.
        note: Where and how it was measured.
        texts: How many columns are no numbers: they are the first ones, and stand to the left.
        level: Of the heading in a page.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    texts: int = 1
    level: int = 2

    def show(self, console: Console | None = None) -> None:
        """Print it."""
        console = console or Console(width=160)
        if not self.header:
            console.print(": ".join(filter(None, (self.title, self.note))), markup=False, highlight=False)
            return
        table = Table(title=self.title, caption=self.note, title_justify="left", caption_justify="left")
        for k, name in enumerate(self.header):
            table.add_column(name, justify="right" if k >= self.texts else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def table(self) -> list[str]:
        """The lines of the table in Markdown."""
        lines = [f"| {' | '.join(self.header)} |"]
        lines.append("|" + "---|" * self.texts + "---:|" * (len(self.header) - self.texts))
        return lines + [f"| {' | '.join(row)} |" for row in self.rows]

    def lines(self) -> list[str]:
        """A part of a page: the title as a heading, the table, the note."""
        head = [f"{'#' * self.level} {self.title}", ""] if self.title else []
        table = [*self.table(), ""] if self.header else []
        return [*head, *table, *([self.note, ""] if self.note else [])]


def write_page(path: Path, lines: Iterable[str]) -> None:
    """Write a page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text("\n".join(lines), encoding="utf-8")
    partial.replace(path)


def fill_page(path: Path, part: str, lines: Iterable[str]) -> None:
    """Put lines between `<!-- PART -->` and `<!-- /PART -->` of a page, at its end where it has no such marks."""
    marks = f"<!-- {part} -->", f"<!-- /{part} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    begin, _, rest = (text if marks[0] in text else "\n".join((text, *marks, ""))).partition(marks[0])
    write_page(path, [begin + marks[0], "", *lines, marks[1] + rest.partition(marks[1])[2]])


def publish(part: str, sections: Iterable[Section], page: Path | None) -> None:
    """Print tables, and put them into their part of a page where one is named; see `fill_page`."""
    sections = list(sections)
    for section in sections:
        section.show()
    if page is not None:
        fill_page(page, part, [line for section in sections for line in section.lines()])


def describe(*packages: str, machine: Mapping[str, Any] | None = None, load: float | None = None) -> str:
    """A machine in one line, with how busy it is: other jobs inflate times, ratios of interleaved runs hold.

    Args:
        packages: Those whose versions count.
        machine: What `environment` said of it; this one if None.
        load: The load average that there was, instead of the one that there is.
    """
    machine = machine or environment()
    versions = ", ".join(f"{name} {machine.get(name) or version(name)}" for name in packages)
    if load is None and hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
    busy = "" if load is None else f", load average {load:.1f} (of other jobs too)"
    return f"{machine['cpu']}, {machine['cores']} cores{busy}; {versions}"


def with_interval(ratio: PairedRatio | None) -> str:
    """A ratio of times with its 95 % interval; nothing for the model that the others are compared with."""
    return "" if ratio is None else f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def study_parser(module: str, doc: str | None, *, page: bool = False) -> argparse.ArgumentParser:
    """A parser of the command line of a study, which tells what its docstring tells.

    Args:
        module: What stands behind `python -m`.
        doc: The docstring of the module.
        page: Whether it fills a part of a page.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if page:
        parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables between the marks of a page")
    return parser
