"""Give memory that nobody uses back to the operating system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

WORTH = 1 << 25
"""Bytes that are freed before it pays to give them back, which walks over all that the process has in memory."""


@dataclass(slots=True)
class FreedMemory:
    """Counts what is freed, and gives it back whenever that is worth it.

    Attributes:
        waiting: Bytes that were freed and not yet given back.
    """

    waiting: int = 0

    def add(self, freed: int) -> None:
        """So many bytes more were freed."""
        self.waiting += freed
        if self.waiting >= WORTH:
            give_back_free_memory()
            self.waiting = 0


def give_back_free_memory() -> None:
    """What was freed goes back to the system at once, where the C library (glibc) would keep it for later.

    It keeps weights of up to 32 MB in a heap for each thread, and what lies between values that live on never leaves.
    """
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return lambda _: None
    return trim
