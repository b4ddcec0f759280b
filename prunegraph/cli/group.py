"""What all commands share: how errors and interruptions end them."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from prunegraph.atomic_write import recorded
from prunegraph.cli.console import Warnings, complain, give_up_stdout
from prunegraph.errors import PruneGraphError


class Terminated(BaseException):
    """A signal asks the process to end; like Ctrl-C it is no error that anything may catch."""

    def __init__(self, number: int) -> None:
        """Keep the number of the signal."""
        super().__init__(number)
        self.number = number


class Commands(TyperGroup):
    """Commands whose errors are one message and one hint on stderr, never a traceback."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Keep the command line as it was given, for reports that say how to do the same again."""
        given = tuple(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.obj = given
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and print errors with their hints."""
        logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of what is none of the caller's business
        received: list[int] = []
        with recorded() as files:
            try:
                with Warnings(), warnings.catch_warnings(), ended_by_signals(received):
                    if not sys.warnoptions:
                        warnings.simplefilter("ignore")
                    return super().invoke(ctx)
            except PruneGraphError as error:
                complain(error.message, error.hint)
                raise typer.Exit(error.exit_code) from error
            except MemoryError as error:
                complain(f"there is not enough memory; {_left(files)}", "give smaller data or a machine with more")
                raise typer.Exit(1) from error
            except KeyboardInterrupt:
                raise _end_by(signal.SIGINT, files) from None
            except Terminated as ended:
                raise _end_by(ended.number, files) from None
            except Exception:
                if not received:
                    raise
                raise _end_by(received[0], files) from None  # an import that was under way made another error of it

    def main(self, args: Any = None, standalone_mode: bool = True, **rest: Any) -> Any:  # type: ignore[override]
        """Run the command line, telling of wrong usage as of any other error."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **rest)
        try:
            code = super().main(args, standalone_mode=False, **rest)
        except OSError as error:
            if error.errno not in _FULL or error.filename is not None:
                raise
            give_up_stdout()
            complain(f"cannot write to stdout: {error.strerror}", "name a place with room: > FILE")
            code = 1
        except Exception as error:  # the base class of usage errors has moved between versions of typer
            if not hasattr(error, "format_message"):
                raise
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "prunegraph"
            complain(error.format_message(), f"{path} --help")
            code = getattr(error, "exit_code", 2)
        sys.exit(code if isinstance(code, int) else 0)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""How a stream that was open fails to take more."""


@contextmanager
def ended_by_signals(received: list[int]) -> Iterator[None]:
    """Turn the signals that end a process into an exception, so that nothing is left behind.

    Args:
        received: Takes their numbers, since not everything lets that exception pass.
    """

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        raise Terminated(number)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        names = [name for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]  # some systems lack one
        for each in (signal.Signals[name] for name in names):
            if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):  # nohup asks to ignore one
                before[each] = signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _end_by(number: int, files: Sequence[Path]) -> typer.Exit:
    """Say what ended the command, and what is left of it."""
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    complain(f"{what}; {_left(files)}")
    return typer.Exit(128 + number)


def _left(files: Sequence[Path]) -> str:
    """What an interruption leaves; folders for the time of a command are gone by then."""
    left = [str(file) for file in files if file.exists()]
    return f"written before: {', '.join(left)}" if left else "no file was changed"
