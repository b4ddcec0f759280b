"""What a comparison found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from prunegraph.bench.stats import FloatArray, PairedRatio


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """One model on one provider.

    Attributes:
        provider: Short name of the execution provider.
        ep: ONNX Runtime's name of it; the session was checked to run on it.
        model: The model's label.
        median_ms: Median of the samples, in milliseconds.
        p95_ms: 95th percentile.
        min_ms: Fastest run.
        load_seconds: What making the session took.
        first_run_ms: The very first run, where some providers compile.
        nodes: Nodes per execution provider, by ONNX Runtime's names; empty where it cannot tell.
        ratio: How many times faster than the first model on this provider; None for the first.
        samples_ms: Every timed run, one per round.
    """

    provider: str
    ep: str
    model: str
    median_ms: float
    p95_ms: float
    min_ms: float
    load_seconds: float
    first_run_ms: float
    nodes: Mapping[str, int]
    ratio: PairedRatio | None
    samples_ms: tuple[float, ...] = dataclasses.field(repr=False)

    @classmethod
    def from_samples(cls, samples: FloatArray, **rest: Any) -> Latency:
        """Summarise milliseconds of shape ``[rounds]``; ``rest`` are the other fields."""
        return cls(
            median_ms=float(np.median(samples)),
            p95_ms=float(np.quantile(samples, 0.95)),
            min_ms=float(samples.min()),
            samples_ms=tuple(samples.tolist()),
            **rest,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Latencies of some models on some providers, taken side by side.

    Attributes:
        results: One per provider and model, provider by provider, models in the order given.
        inputs: Shape of each input.
        sizes: Size of each dynamic dim.
        threads: Threads inside an operator; operators run one after the other.
        warmup: Rounds thrown away, as asked for.
        seed: Of inputs, orders and intervals.
        environment: Machine and versions; never a host or user name.
    """

    results: tuple[Latency, ...]
    inputs: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    threads: int
    warmup: int
    seed: int
    environment: Mapping[str, str | int]

    def to_dict(self, *, samples: bool = False) -> dict[str, Any]:
        """Plain data for JSON; ``samples`` adds every timed run."""
        data = dataclasses.asdict(self)
        for entry in data["results"]:
            raw = entry.pop("samples_ms")
            entry["rounds"] = len(raw)
            if samples:
                entry["samples_ms"] = raw
        return {"schema": 1, **data}
