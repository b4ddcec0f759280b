"""Cases in child processes: each one alone, on one thread, ended when it takes too long.

Exporters and optimizers crash, hang and keep state, so that no two cases may share a process. Children are forked from
a server that has imported the libraries once; imports would take longer than most cases.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Record = dict[str, Any]

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
