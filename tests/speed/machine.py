"""A pretended machine whose time is the number of weights: promises of speed are checked without a timing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.bench.device_table import WHOLE
from prunegraph.bench.results import Comparison, Latency
from prunegraph.bench.stats import PairedRatio
from prunegraph.speed.timer import Timer
from tests.graphs.builder import Builder, layer_norm, linear

WIDTH, FFN, LAYERS, CLASSES = 16, 64, 3, 5
FLOOR = 500


def network() -> onnx.ModelProto:
    """Residual FFN blocks of which the last hardly matters."""
    g = Builder("blocks")
    x = g.input("x", "batch", WIDTH)
    for k in range(LAYERS):
        hidden = g("Relu", linear(g, x, f"up{k}", WIDTH, FFN))
        out = linear(g, hidden, f"down{k}", FFN, WIDTH)
        if k == LAYERS - 1:
            g.initializers[f"w_down{k}"] = g.initializers[f"w_down{k}"] * np.float32(0.01)
        x = layer_norm(g, g("Add", x, out), f"ln{k}", WIDTH)
    g.output(linear(g, x, "classes", WIDTH, CLASSES), "batch", CLASSES)
    return g.model()


def weights(model: ir.Model) -> int:
    return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)


def time_of(model: ir.Model) -> float:
    fused = sum(node.op_type == "Add" for node in model.graph)
    return FLOOR + weights(model) + 50 * fused


def arm(name: str, ms: float, ratio: float | None) -> Latency:
    paired = None if ratio is None else PairedRatio(ratio, ratio * 0.995, ratio * 1.005)
    fields: dict[str, Any] = {"load_seconds": 0.0, "first_run_ms": 0.0, "nodes": {}, "ratio": paired}
    return Latency.from_samples(np.full(6, ms), provider="cpu", ep="CPUExecutionProvider", model=name, **fields)


DATA = {"x": np.random.default_rng(0).normal(size=(96, WIDTH)).astype(np.float32)}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Pretend; the names of everything that is timed come into the list."""
    timed: list[str] = []

    def pair(self: Timer, first: ir.Model, second: ir.Model, *, name: str = "slim", **settings: Any) -> Comparison:
        timed.append(name)
        both = time_of(first), time_of(second)
        rows = (arm(WHOLE, both[0] / 1000, None), arm(name, both[1] / 1000, both[0] / both[1]))
        return Comparison(rows, {}, {"batch": 1}, 1, 0, 0, {"cpu": "pretended"}, self.protocol)

    monkeypatch.setattr(Timer, "pair", pair)
    monkeypatch.setenv("PRUNEGRAPH_CACHE", str(tmp_path / "cache" / "observations"))
    return timed
