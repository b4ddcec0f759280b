"""The two streams: data on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from prunegraph.cli.escape import escape_all, escaped
from prunegraph.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 120
"""Columns of what is written to a file or a pipe, unless COLUMNS says otherwise."""

NARROWEST, WIDEST = 40, 2000
"""Columns that tables are laid out for, whatever COLUMNS says."""

_STEPS = {
    "load": "reading the model",
    "normalize": "probing shapes and normalizing",
    "analyze": "analysing",
    "observe": "running the model on the examples",
    "filter": "trying heads",
    "layers": "seeing which groups can go whole",
    "evaluate": "running both models on the examples",
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
    """Print data for people, without the blanks that tables leave at the ends of lines; a string is no markup.

    Raises:
        OutputError: stdout takes no more.
    """
    from rich.text import Text

    console = _console(sys.stdout)
    with _writing(), console.capture() as captured:  # which writes nothing, but does write
        for each in data:
            console.print(escape_all(Text(each) if isinstance(each, str) else each))
    _write(re.sub(r"[ \t]+$", "", captured.get(), flags=re.MULTILINE))


def show_json(data: Any) -> None:
    """Print data for programs; what JSON has no number for is null.

    Raises:
        OutputError: stdout takes no more.
    """
    _write(json.dumps(_finite(data), indent=2, allow_nan=False) + "\n")


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line about what is going on; line ends that the first part starts with are blank lines before it."""
    from rich.text import Text

    texts = [(part, "") if isinstance(part, str) else part for part in parts]
    first = texts[0][0]
    texts[0] = (first.lstrip("\n"), texts[0][1])
    blank = "\n" * (len(first) - len(texts[0][0]))
    line = Text.assemble(blank, *((escaped(text), style) for text, style in texts))
    with contextlib.suppress(OSError, ValueError):  # nobody listens: closed, or a full disk
        _console(sys.stderr).print(line, soft_wrap=True)


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
    with Progress(*columns, console=_console(sys.stderr), transient=True, disable=not _is_terminal()) as bar:
        task = bar.add_task("starting", total=None)

        def report(step: str) -> None:
            name, _, count = step.partition(": ")
            bar.update(task, description=escaped(": ".join(filter(None, (_STEPS.get(name, name), count)))))

        yield report


@contextmanager
def rounds() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar that moves only when told to, so that nothing runs beside what is being timed.

    Yields:
        What to call with what is being done, how much of it is done, and how much there is.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    shown = _is_terminal()
    with Progress(*columns, console=_console(sys.stderr), transient=True, auto_refresh=False, disable=not shown) as bar:
        task = bar.add_task("starting", total=None)

        def report(what: str, done: int, total: int) -> None:
            if shown:
                bar.update(task, description=escaped(what), completed=done, total=total)
                bar.refresh()

        yield report


class Warnings(logging.Handler):
    """Warnings of the library, as lines on stderr, while it is entered."""

    def __enter__(self) -> Warnings:
        """Show warnings of the library on the terminal from now on."""
        self.setLevel(logging.WARNING)
        logging.getLogger("prunegraph").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Show no more warnings of the library."""
        logging.getLogger("prunegraph").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record of the log."""
        say(("warning: ", "bold yellow"), record.getMessage())


def _console(stream: TextIO | None) -> Console:
    """A console on the stream as it is now; tests and pipes replace it, and a closed one is None."""
    from rich.console import Console

    stream = stream or io.StringIO()
    chosen = os.environ.get("COLUMNS")
    width = None if stream.isatty() else PIPED_WIDTH
    if chosen is not None:
        number = chosen.strip()
        width = int(number[:9]) if number.isascii() and number.isdecimal() else width or PIPED_WIDTH
        width = min(max(width, NARROWEST), WIDEST)
    height = None if "LINES" not in os.environ else 25
    return Console(file=stream, highlight=False, width=width, height=height)


def shown_width() -> int:
    """Columns of what is printed on stdout."""
    return _console(sys.stdout).width


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _write(text: str) -> None:
    """Write data to stdout, whatever its encoding can hold."""
    if sys.stdout is None:
        raise OutputError("stdout is closed", hint="name a file: > FILE")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with _writing():
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what stdout raises into an error with a hint; a reader that went away is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        raise OutputError(f"cannot write to stdout: {error.strerror}", hint="name a place with room: > FILE") from error


def give_up_stdout() -> None:
    """Let what is still to be written to stdout go nowhere, so that leaving does not fail over it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
