"""Training checkpoints: the state of a run in a file, so that a killed one goes on as if nothing had been."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prunegraph.atomic_write import make_folder, stage
from prunegraph.errors import UsageError, first_line

NAME = "checkpoint.pt"
EVERY = 60.0
"""Seconds between two checkpoints within an epoch; there is one after each epoch anyway."""


class Checkpoint:
    """A file that holds the state of a run and what the run is about, replaced as a whole."""

    def __init__(self, folder: str | os.PathLike[str], about: Mapping[str, str], *, resume: bool) -> None:
        """Open it.

        Args:
            folder: Made if it is not there.
            about: What must be the same for a run to go on.
            resume: Whether there is a run to go on with.

        Raises:
            UsageError: there is none and should be, there is one and should not be, or it is another run's.
            OutputError: the folder cannot be made.
        """
        self.path, self.about, self._saved = Path(folder) / NAME, dict(about), time.monotonic()
        make_folder(self.path.parent)
        self.state = self._read() if resume else None
        if not resume and self.path.exists():
            hint = "--resume (resume=True) goes on with it; for a new run name another folder or delete it"
            raise UsageError(f"{folder} holds the checkpoint of a run", hint=hint)

    def save(self, state: Callable[[], Mapping[str, Any]], *, now: bool) -> None:
        """Write the state, if it is time to or `now`."""
        import torch

        if now or time.monotonic() - self._saved >= EVERY:
            with stage(self.path) as aside:
                torch.save({"about": self.about, "state": dict(state())}, aside / NAME)
            self._saved = time.monotonic()

    def resume(self, restore: Callable[[Mapping[str, Any]], None]) -> None:
        """Hand the state to what takes it over.

        Raises:
            UsageError: the file lacks a part of it, or holds another model's.
        """
        assert self.state is not None
        try:
            restore(self.state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # torch: RuntimeError
            problem = f"{self.path} does not hold the whole state of a run: {first_line(error)}"
            raise UsageError(problem, hint="delete it to begin anew") from error

    def _read(self) -> Mapping[str, Any]:
        import torch

        if not self.path.is_file():
            raise UsageError(f"there is no checkpoint {self.path}", hint="leave out --resume (resume=True) to begin")
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            about, state = dict(content["about"]), dict(content["state"])
        except Exception as error:  # torch raises whatever it meets in a file that it did not write
            problem = f"{self.path} is no checkpoint: {first_line(error)}"
            raise UsageError(problem, hint="delete it to begin anew") from error
        other = [name for name in self.about if about.get(name) != self.about[name]]
        if other:
            hint = "give what the run was begun with, or begin another in a folder of its own"
            raise UsageError(f"{self.path} is of a run with other {', '.join(other)}", hint=hint)
        return state
