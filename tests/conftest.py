"""What tests of several folders share. A bug in an axis rule is an error here; a user gets a pin and a warning."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["PRUNEGRAPH_STRICT"] = "1"


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: the collector need not look at millions of objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of observations for the test alone."""
    monkeypatch.setenv("PRUNEGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Several threads on small tensors wait for each other more than they compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
