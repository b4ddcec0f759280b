"""Prune a neural-network graph: physically smaller, and proven equal to the original minus what was removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunegraph.moved import forward_old_paths

forward_old_paths()

if TYPE_CHECKING:
    from prunegraph.analysis.analyze import Analysis
    from prunegraph.analysis.groups import Group
    from prunegraph.analysis.selection import Selection
    from prunegraph.api import analyze, prune_graph
    from prunegraph.errors import PruneGraphError
    from prunegraph.result import PruneResult
    from prunegraph.train.finetune import FinetuneResult, finetune
else:
    _HOMES = {
        "Analysis": "prunegraph.analysis.analyze",
        "FinetuneResult": "prunegraph.train.finetune",
        "Group": "prunegraph.analysis.groups",
        "PruneGraphError": "prunegraph.errors",
        "PruneResult": "prunegraph.result",
        "Selection": "prunegraph.analysis.selection",
        "analyze": "prunegraph.api",
        "finetune": "prunegraph.train.finetune",
        "prune_graph": "prunegraph.api",
    }

    def __getattr__(name: str) -> object:
        """Import on first use: onnx and ONNX Runtime take a second that `prunegraph --help` does not need."""
        import importlib

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


__all__ = [
    "Analysis",
    "FinetuneResult",
    "Group",
    "PruneGraphError",
    "PruneResult",
    "Selection",
    "analyze",
    "finetune",
    "prune_graph",
]
