"""Prune a neural-network graph: physically smaller, and proven equal to the original minus what was removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunegraph.moved import forward_old_paths

forward_old_paths()

if TYPE_CHECKING:
    from prunegraph import scorers
    from prunegraph.analysis.analyze import Analysis
    from prunegraph.analysis.groups import Group
    from prunegraph.analysis.selection import Selection
    from prunegraph.api import analyze, from_torch, prune_graph, to_module, to_torch, verify, verify_files, write_back
    from prunegraph.bench.device_table import LatencyTable
    from prunegraph.errors import (
        MissingExtra,
        ModelError,
        NothingToPrune,
        OutputError,
        PruneGraphError,
        UsageError,
        VerificationFailed,
    )
    from prunegraph.graph import Graph
    from prunegraph.observe.evaluation import Evaluation
    from prunegraph.observe.images import Images
    from prunegraph.observe.stream import Data
    from prunegraph.passes.choose.head_filter import FilterOptions
    from prunegraph.passes.choose.request import Amount, Scope
    from prunegraph.passes.choose.scored import Scores
    from prunegraph.passes.choose.select_units import Targets
    from prunegraph.passes.choose.targets import ByScorer, Kept, Ranked
    from prunegraph.passes.prove.verify import Verification
    from prunegraph.passes.score import Context, Scorer
    from prunegraph.quantization.options import Quantize
    from prunegraph.quantization.quantize import QuantizeReport, QuantizeResult, quantize
    from prunegraph.report import Report, SpeedReport
    from prunegraph.request import Repair
    from prunegraph.result import PruneResult
    from prunegraph.speed.here import latency_table
    from prunegraph.speed.versions import Sweep, sweep
    from prunegraph.train.finetune import FinetuneResult, finetune
    from prunegraph.train.options import Finetune

    __version__: str
else:
    _HOMES = {
        "Amount": "passes.choose.request",
        "Analysis": "analysis.analyze",
        "ByScorer": "passes.choose.targets",
        "Context": "passes.score",
        "Data": "observe.stream",
        "Evaluation": "observe.evaluation",
        "FilterOptions": "passes.choose.head_filter",
        "Finetune": "train.options",
        "FinetuneResult": "train.finetune",
        "Graph": "graph",
        "Group": "analysis.groups",
        "Images": "observe.images",
        "Kept": "passes.choose.targets",
        "LatencyTable": "bench.device_table",
        "MissingExtra": "errors",
        "ModelError": "errors",
        "NothingToPrune": "errors",
        "OutputError": "errors",
        "PruneGraphError": "errors",
        "PruneResult": "result",
        "Quantize": "quantization.options",
        "QuantizeReport": "quantization.quantize",
        "QuantizeResult": "quantization.quantize",
        "Ranked": "passes.choose.targets",
        "Repair": "request",
        "Report": "report",
        "Scope": "passes.choose.request",
        "Scorer": "passes.score",
        "Scores": "passes.choose.scored",
        "Selection": "analysis.selection",
        "SpeedReport": "report",
        "Sweep": "speed.versions",
        "Targets": "passes.choose.select_units",
        "UsageError": "errors",
        "Verification": "passes.prove.verify",
        "VerificationFailed": "errors",
        "analyze": "api",
        "finetune": "train.finetune",
        "from_torch": "api",
        "latency_table": "speed.here",
        "prune_graph": "api",
        "quantize": "quantization.quantize",
        "sweep": "speed.versions",
        "to_module": "api",
        "to_torch": "api",
        "verify": "api",
        "verify_files": "api",
        "write_back": "api",
    }

    def __getattr__(name: str) -> object:
        """Import on first use: onnx and ONNX Runtime take a second that `prunegraph --help` does not need."""
        import importlib

        if name == "__version__":
            from prunegraph.installed import installed_version

            return installed_version()
        if name == "scorers":
            return importlib.import_module("prunegraph.scorers")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"prunegraph.{_HOMES[name]}"), name)

    def __dir__() -> list[str]:
        """What there is to complete."""
        return sorted({*globals(), *__all__})


__all__ = [
    "Amount",
    "Analysis",
    "ByScorer",
    "Context",
    "Data",
    "Evaluation",
    "FilterOptions",
    "Finetune",
    "FinetuneResult",
    "Graph",
    "Group",
    "Images",
    "Kept",
    "LatencyTable",
    "MissingExtra",
    "ModelError",
    "NothingToPrune",
    "OutputError",
    "PruneGraphError",
    "PruneResult",
    "Quantize",
    "QuantizeReport",
    "QuantizeResult",
    "Ranked",
    "Repair",
    "Report",
    "Scope",
    "Scorer",
    "Scores",
    "Selection",
    "SpeedReport",
    "Sweep",
    "Targets",
    "UsageError",
    "Verification",
    "VerificationFailed",
    "__version__",
    "analyze",
    "finetune",
    "from_torch",
    "latency_table",
    "prune_graph",
    "quantize",
    "scorers",
    "sweep",
    "to_module",
    "to_torch",
    "verify",
    "verify_files",
    "write_back",
]
