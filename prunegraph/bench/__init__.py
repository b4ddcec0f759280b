"""Interleaved latency of ONNX models over ONNX Runtime execution providers."""

from __future__ import annotations

from prunegraph.bench.apart import compare_apart
from prunegraph.bench.compare import ProgressCallback, compare
from prunegraph.bench.results import Comparison, Latency
from prunegraph.bench.stats import PairedRatio
from prunegraph.runtime.on_provider import ModelSource
from prunegraph.runtime.providers import PROVIDERS, Provider

__all__ = [
    "PROVIDERS",
    "Comparison",
    "Latency",
    "ModelSource",
    "PairedRatio",
    "ProgressCallback",
    "Provider",
    "compare",
    "compare_apart",
]
