"""Limit runs in time and memory where they are trials; Ctrl-C ends them always."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

BYTES_A_TRIAL = 3 << 30
"""What a trial may allocate: ONNX Runtime's arena ends there."""

BYTES_OF_INPUTS = 1 << 30
"""Inputs that are larger are not made up, neither for a trial nor for a proof."""

BYTES_OF_INNER = 1 << 28
"""Values inside of a graph that a proof compares in one run, about; what is more than that is taken in further runs."""


class CannotRun(Exception):
    """ONNX Runtime refuses a model or a run of it."""


class OutOfLimits(CannotRun):
    """A run took more time or memory than it may."""


class TooLong(OutOfLimits):
    """A run did not end in time: it may have no end, at other sizes neither."""


class TooLarge(OutOfLimits):
    """A run wanted more memory than it may have."""


SECONDS_A_LOOK = 0.25
"""A signal that another thread was given is seen after this time."""

SECONDS_A_TRIAL = 20
"""A graph with a loop that has no end ends here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take.

    Attributes:
        memory: Whether it ends at `BYTES_A_TRIAL`.
        seconds: How long it may take, for ever if None.
    """

    memory: bool = False
    seconds: float | None = None


UNLIMITED = Limits()
TRIAL = Limits(memory=True, seconds=SECONDS_A_TRIAL)


def interruptible(
    session: ort.InferenceSession,
    feeds: Mapping[str, npt.NDArray[Any]],
    outputs: Sequence[str] | None,
    *,
    seconds: float | None = None,
    shrink: bool = False,
) -> list[Any]:
    """What a session makes of its inputs; Ctrl-C ends it at the next node.

    ONNX Runtime holds the thread that it is called from, so that Python sees no signal: it is called from another.

    Args:
        session: What runs.
        feeds: Its inputs.
        outputs: Names of outputs, all if None.
        seconds: How long it may take, for ever if None.
        shrink: Whether memory goes back to the system when it ends.

    Raises:
        TooLong: it took longer.
    """
    options = ort.RunOptions()
    if shrink:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    results: list[Any] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def call() -> None:
        try:
            results.extend(session.run(outputs, dict(feeds), options))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    end = math.inf if seconds is None else time.monotonic() + seconds
    try:
        while not ended.wait(min(SECONDS_A_LOOK, max(end - time.monotonic(), 0))):
            if time.monotonic() >= end:
                raise TooLong(f"it did not end within {seconds} seconds")
    except BaseException:
        _end(options, ended)
        raise
    thread.join()  # as long as it lives it holds the session, and that its weights
    if errors:
        raise errors[0]
    return results


def _end(options: ort.RunOptions, ended: threading.Event) -> None:
    """Whatever ends the wait ends the run: nothing may still be running when Python leaves."""
    options.log_severity_level = 4
    options.terminate = True
    ended.wait()


def _once() -> Callable[[], None]:
    registered = threading.Lock()

    def register() -> None:
        if registered.acquire(blocking=False):
            memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            ort.create_and_register_allocator(
                memory, ort.OrtArenaCfg({"max_mem": BYTES_A_TRIAL, "arena_extend_strategy": 1})
            )

    return register


_register_arena = _once()


def limit_memory(options: ort.SessionOptions) -> None:
    """Let a session allocate from an arena that ends at `BYTES_A_TRIAL`, and look at shapes as soon as they are there.

    A session by itself runs the nodes that look at shapes last, and holds every value until then.
    """
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
