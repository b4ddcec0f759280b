"""Results of a comparison: latencies, ratios and the environment, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from prunegraph.bench.stats import FloatArray, PairedRatio
from prunegraph.errors import UsageError

CARRIES = {90: 64, 99: 662}
"""So many samples a percentile needs, as MLPerf Inference counts them for early stopping."""


@dataclasses.dataclass(frozen=True, slots=True)
class Alone:
    """One model in a fresh process, loaded and run once.

    Attributes:
        load_seconds: What making the session took; where the provider compiles into a cache, with that.
        first_run_ms: The very first run, where some providers compile.
        peak_memory_mib: The most memory that the process had on the host; None where the system does not tell.
        without_model_mib: The same before the model was loaded.
    """

    load_seconds: float
    first_run_ms: float
    peak_memory_mib: float | None
    without_model_mib: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """One model on one provider.

    Attributes:
        provider: Short name of the execution provider.
        ep: ONNX Runtime's name of it; the session was checked to run on it.
        model: The model's label.
        median_ms: Median of the samples, in milliseconds.
        p90_ms: 90th percentile; None with fewer samples than `CARRIES` says.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile; None with fewer samples than `CARRIES` says.
        min_ms: Fastest run.
        load_seconds: What making the session took.
        first_run_ms: The very first run, where some providers compile.
        nodes: Nodes per execution provider, by ONNX Runtime's names; empty where it cannot tell.
        ratio: How many times faster than the first model on this provider; None for the first.
        samples_ms: Every timed run, one per round.
        inputs: Shape of each input.
        bytes: Size of the model, weights that lie beside it too; None where nobody knows it.
        alone: What the model takes in a process of its own; None where that was not asked for.
        fused: How many nodes of each op the optimizer of transformers made; empty where it was not asked for.
        joules: Of one run by rail, what the machine takes at rest among them; empty where nobody measured it.
    """

    provider: str
    ep: str
    model: str
    median_ms: float
    p90_ms: float | None
    p95_ms: float
    p99_ms: float | None
    min_ms: float
    load_seconds: float
    first_run_ms: float
    nodes: Mapping[str, int]
    ratio: PairedRatio | None
    samples_ms: tuple[float, ...] = dataclasses.field(repr=False)
    inputs: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    bytes: int | None = None
    alone: Alone | None = None
    fused: Mapping[str, int] = dataclasses.field(default_factory=dict)
    joules: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_samples(cls, samples: FloatArray, **rest: Any) -> Latency:
        """Summarise milliseconds of shape ``[rounds]``; ``rest`` are the other fields."""
        return cls(
            median_ms=float(np.median(samples)),
            p90_ms=_percentile(samples, 90),
            p95_ms=float(np.quantile(samples, 0.95)),
            p99_ms=_percentile(samples, 99),
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
        protocol: How the models took turns, see `latency.PROTOCOLS`.
        environments: The same by provider, where each had a process of its own.
    """

    results: tuple[Latency, ...]
    inputs: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    threads: int
    warmup: int
    seed: int
    environment: Mapping[str, str | int]
    protocol: str = "turns"
    environments: Mapping[str, Mapping[str, str | int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """A comparison from what `to_dict` or the script of a bundle wrote, with samples.

        Raises:
            UsageError: it is something else, or has no samples.
        """
        hint = "give results.json of a bundle's run.py, or what `prunegraph bench --json --samples` printed"
        try:
            if data["schema"] != 1:
                raise UsageError(f"the results have version {data['schema']!r}, not 1", hint=hint)
            rows = tuple(_row(entry, data["inputs"]) for entry in data["results"])
            inputs = {name: tuple(shape) for name, shape in data["inputs"].items()}
            names = ("sizes", "threads", "warmup", "seed", "environment")
            kept = {"protocol": data.get("protocol", "turns"), "environments": data.get("environments") or {}}
            return cls(rows, inputs, **{name: data[name] for name in names}, **kept)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"these are no results with samples: {error!r}", hint=hint) from error

    def to_dict(self, *, samples: bool = False) -> dict[str, Any]:
        """Plain data for JSON; ``samples`` adds every timed run."""
        data = dataclasses.asdict(self)
        for entry in data["results"]:
            raw = entry.pop("samples_ms")
            entry["rounds"] = len(raw)
            if samples:
                entry["samples_ms"] = raw
        return {"schema": 1, **data}


def _row(entry: Mapping[str, Any], inputs: Mapping[str, Any]) -> Latency:
    """One row, its figures made anew from the samples; with the common inputs where it names none of its own."""
    samples = np.asarray(entry["samples_ms"], dtype=np.float64)
    ratio = None if entry["ratio"] is None else PairedRatio(**entry["ratio"])
    names = ("provider", "ep", "model", "load_seconds", "first_run_ms", "nodes")
    alone = entry.get("alone")
    return Latency.from_samples(
        samples,
        ratio=ratio,
        inputs={name: tuple(shape) for name, shape in (entry.get("inputs") or inputs).items()},
        bytes=entry.get("bytes"),
        alone=alone and Alone(**alone),
        fused=entry.get("fused") or {},
        joules=entry.get("joules") or {},
        **{name: entry[name] for name in names},
    )


def _percentile(samples: FloatArray, percent: int) -> float | None:
    return float(np.percentile(samples, percent)) if len(samples) >= CARRIES[percent] else None
