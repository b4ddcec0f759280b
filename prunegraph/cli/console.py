"""The two streams: data on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 120
"""Columns of what is written to a file or a pipe, unless COLUMNS says otherwise."""

_STEPS = {
    "load": "reading the model",
    "normalize": "probing shapes and normalizing",
    "analyze": "analysing",
    "observe": "running the model on the examples",
    "filter": "trying heads",
    "score": "scoring",
    "shrink": "shrinking",
    "repair": "re-fitting what reads removed units, on the examples",
    "finetune": "fine-tuning on the examples",
    "verify": "verifying: running the masked original and the slim model",
    "save": "writing",
    "export": "tracing the module and translating it to ONNX",
    "compare": "comparing with the module",
}


def show(*data: RenderableType) -> None:
    """Print data for people, without the blanks that tables leave at the ends of lines."""
    console = _console(stderr=False)
    with console.capture() as captured:
        console.print(*data, sep="\n")
    sys.stdout.write(re.sub(r"[ \t]+$", "", captured.get(), flags=re.MULTILINE))
    sys.stdout.flush()


def show_json(data: Any) -> None:
    """Print data for programs; what JSON has no number for is null."""
    print(json.dumps(_finite(data), indent=2, allow_nan=False))


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line about what is going on."""
    from rich.text import Text

    _console(stderr=True).print(Text.assemble(*parts), soft_wrap=True)


def complain(message: str, hint: str = "") -> None:
    """Print what is wrong and, after a blank line, what to do about it."""
    say(("error: ", "bold red"), message)
    if hint:
        say("\n", ("hint: ", "bold cyan"), hint)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show the running step and the time since the start, on a terminal; nothing elsewhere, and nothing afterwards.

    Yields:
        What to call with the name of each step.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("starting", total=None)

        def report(step: str) -> None:
            name, _, count = step.partition(": ")
            bar.update(task, description=": ".join(filter(None, (_STEPS.get(name, name), count))))

        yield report


def _described(step: str) -> str:
    """A step in words; `STEP: N` says how far it has come."""
    name, colon, done = step.partition(": ")
    return _STEPS.get(name, name) + colon + done


@contextmanager
def rounds() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar that moves only when told to, so that nothing runs beside what is being timed.

    Yields:
        What to call with what is being done, how much of it is done, and how much there is.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    shown = sys.stderr.isatty()
    with Progress(
        *columns, console=_console(stderr=True), transient=True, auto_refresh=False, disable=not shown
    ) as bar:
        task = bar.add_task("starting", total=None)

        def report(what: str, done: int, total: int) -> None:
            if shown:
                bar.update(task, description=what, completed=done, total=total)
                bar.refresh()

        yield report


class Warnings(logging.Handler):
    """Warnings of the library, as lines on stderr, while it is entered."""

    def __enter__(self) -> Warnings:
        """Start listening."""
        self.setLevel(logging.WARNING)
        logging.getLogger("prunegraph").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        logging.getLogger("prunegraph").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        say(("warning: ", "bold yellow"), record.getMessage())


def _console(*, stderr: bool) -> Console:
    """A console on the stream as it is now; tests and pipes replace it."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, width=width)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
