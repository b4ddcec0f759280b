"""Time the steps of a run, and tell which one runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""


class Clock:
    """Tells the caller which step runs, and remembers how long each took."""

    def __init__(self, progress: Progress | None = None) -> None:
        """Report to `progress`, if anybody listens."""
        self._progress = progress
        self._running = ""
        self.seconds: dict[str, float] = {}

    def fork(self) -> Clock:
        """A clock that goes on from here and reports to the same listener."""
        other = Clock(self._progress)
        other.seconds = dict(self.seconds)
        return other

    def count(self, done: int) -> None:
        """Tell how far the running step has come."""
        if self._progress is not None:
            self._progress(f"{self._running}: {done}")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step, and tell the listener that it begins."""
        self._running = name
        if self._progress is not None:
            self._progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
