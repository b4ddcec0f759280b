"""Interleaved latency of ONNX models over ONNX Runtime execution providers."""

from __future__ import annotations

from prunegraph.bench.compare import ProgressCallback, compare
from prunegraph.bench.providers import PROVIDERS, Provider
from prunegraph.bench.results import Comparison, Latency
from prunegraph.bench.sessions import ModelSource
from prunegraph.bench.stats import PairedRatio

__all__ = [
    "PROVIDERS",
    "Comparison",
    "Latency",
    "ModelSource",
    "PairedRatio",
    "ProgressCallback",
    "Provider",
    "compare",
]
