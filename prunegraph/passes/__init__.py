"""The passes, a room each: normalize, rotate, dead units, score, choose, rewrite, prove, repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunegraph.prune_pass import PrunePass

__all__ = ["PrunePass"]


def __getattr__(name: str) -> object:
    """`PrunePass` is made of all rooms, and only looked up here."""
    if name != "PrunePass":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module("prunegraph.prune_pass").PrunePass
