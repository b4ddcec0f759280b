"""Prune a neural-network graph: physically smaller, and proven equal to the original minus what was removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunegraph.moved import forward_old_paths

forward_old_paths()

if TYPE_CHECKING:
    from prunegraph import scorers
    from prunegraph.analysis.analyze import Analysis
    from prunegraph.analysis.axes import Axis
    from prunegraph.analysis.groups import Group
    from prunegraph.analysis.selection import Selection
    from prunegraph.api import analyze, from_torch, prune_graph, to_module, to_torch, verify, verify_files, write_back
    from prunegraph.bench.device_table import LatencyTable
    from prunegraph.bench.profile import NodeTime
    from prunegraph.clock import Clock, Progress
    from prunegraph.errors import (
        MissingExtra,
        ModelError,
        NothingToPrune,
        OutputError,
        PruneGraphError,
        UsageError,
        VerificationFailed,
    )
    from prunegraph.export.convert import Model, ModelLike
    from prunegraph.graph import Graph
    from prunegraph.observe.data import DataLike
    from prunegraph.observe.evaluation import Evaluation
    from prunegraph.observe.images import Images
    from prunegraph.observe.stream import Data
    from prunegraph.passes.choose.amounts import Ratio
    from prunegraph.passes.choose.head_filter import FilterOptions
    from prunegraph.passes.choose.request import Amount, Scope
    from prunegraph.passes.choose.scored import Scores
    from prunegraph.passes.choose.select_units import Targets
    from prunegraph.passes.choose.targets import ByScorer, Kept, Ranked
    from prunegraph.passes.dead import Folded
    from prunegraph.passes.prove.verify import Verification
    from prunegraph.passes.repair import Written
    from prunegraph.passes.rotate import Rotation
    from prunegraph.passes.score import Context, KindScorers, Scorer, Scorers
    from prunegraph.quantization.options import Quantize
    from prunegraph.quantization.quantize import QuantizeReport, QuantizeResult, quantize
    from prunegraph.report import Report, SpeedReport
    from prunegraph.request import Repair, Step
    from prunegraph.result import PruneResult
    from prunegraph.speed.here import latency_table
    from prunegraph.speed.roofline import Device
    from prunegraph.speed.versions import Sweep, sweep
    from prunegraph.train.finetune import FinetuneResult, finetune
    from prunegraph.train.loop import TrainingProgress
    from prunegraph.train.options import Finetune

    __version__: str
else:
    _HOMES = {
        "Amount": "passes.choose.request",
        "Analysis": "analysis.analyze",
        "Axis": "analysis.axes",
        "ByScorer": "passes.choose.targets",
        "Clock": "clock",
        "Context": "passes.score",
        "Data": "observe.stream",
        "DataLike": "observe.data",
        "Device": "speed.roofline",
        "Evaluation": "observe.evaluation",
        "FilterOptions": "passes.choose.head_filter",
        "Finetune": "train.options",
        "FinetuneResult": "train.finetune",
        "Folded": "passes.dead",
        "Graph": "graph",
        "Group": "analysis.groups",
        "Images": "observe.images",
        "Kept": "passes.choose.targets",
        "KindScorers": "passes.score",
        "LatencyTable": "bench.device_table",
        "MissingExtra": "errors",
        "Model": "export.convert",
        "ModelError": "errors",
        "ModelLike": "export.convert",
        "NodeTime": "bench.profile",
        "NothingToPrune": "errors",
        "OutputError": "errors",
        "Progress": "clock",
        "PruneGraphError": "errors",
        "PruneResult": "result",
        "Quantize": "quantization.options",
        "QuantizeReport": "quantization.quantize",
        "QuantizeResult": "quantization.quantize",
        "Ranked": "passes.choose.targets",
        "Ratio": "passes.choose.amounts",
        "Repair": "request",
        "Report": "report",
        "Rotation": "passes.rotate",
        "Scope": "passes.choose.request",
        "Scorer": "passes.score",
        "Scorers": "passes.score",
        "Scores": "passes.choose.scored",
        "Selection": "analysis.selection",
        "SpeedReport": "report",
        "Step": "request",
        "Sweep": "speed.versions",
        "Targets": "passes.choose.select_units",
        "TrainingProgress": "train.loop",
        "UsageError": "errors",
        "Verification": "passes.prove.verify",
        "VerificationFailed": "errors",
        "Written": "passes.repair",
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
    "Axis",
    "ByScorer",
    "Clock",
    "Context",
    "Data",
    "DataLike",
    "Device",
    "Evaluation",
    "FilterOptions",
    "Finetune",
    "FinetuneResult",
    "Folded",
    "Graph",
    "Group",
    "Images",
    "Kept",
    "KindScorers",
    "LatencyTable",
    "MissingExtra",
    "Model",
    "ModelError",
    "ModelLike",
    "NodeTime",
    "NothingToPrune",
    "OutputError",
    "Progress",
    "PruneGraphError",
    "PruneResult",
    "Quantize",
    "QuantizeReport",
    "QuantizeResult",
    "Ranked",
    "Ratio",
    "Repair",
    "Report",
    "Rotation",
    "Scope",
    "Scorer",
    "Scorers",
    "Scores",
    "Selection",
    "SpeedReport",
    "Step",
    "Sweep",
    "Targets",
    "TrainingProgress",
    "UsageError",
    "Verification",
    "VerificationFailed",
    "Written",
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
