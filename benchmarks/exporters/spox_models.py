"""Graphs written by hand with spox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Outputs = tuple[dict[str, Any], dict[str, Any]]


class _Layers:
    """Layers with random weights, as ops of spox."""

    def __init__(self, op: Any, np: Any) -> None:
        self.op, self.np, self.rng = op, np, np.random.default_rng(0)

    def weight(self, *shape: int) -> Any:
        return self.op.const(self.rng.normal(0, shape[0] ** -0.5, shape).astype(self.np.float32))

    def linear(self, x: Any, inner: int, outer: int) -> Any:
        return self.op.add(self.op.matmul(x, self.weight(inner, outer)), self.weight(outer))

    def norm(self, x: Any, width: int) -> Any:
        return self.op.layer_normalization(x, self.weight(width), self.weight(width), axis=-1)[0]


def _mlp(op: Any, make: _Layers, argument: Callable[..., Any]) -> Outputs:
    x = argument("batch", 24)
    y = make.linear(op.relu(make.linear(x, 24, 48)), 48, 32)
    return {"x": x}, {"y": make.linear(op.tanh(y), 32, 5)}


def _attention(op: Any, make: _Layers, argument: Callable[..., Any]) -> Outputs:
    x = argument("batch", "length", 32)
    y = make.norm(x, 32)
    shape = op.const(make.np.array([0, 0, 4, 8]))
    q, k, v = (op.transpose(op.reshape(make.linear(y, 32, 32), shape), perm=[0, 2, 1, 3]) for _ in range(3))
    scores = op.matmul(q, op.transpose(k, perm=[0, 1, 3, 2]))
    mixed = op.matmul(op.softmax(op.div(scores, op.const(make.np.float32(8**0.5))), axis=-1), v)
    merged = op.reshape(op.transpose(mixed, perm=[0, 2, 1, 3]), op.const(make.np.array([0, 0, 32])))
    y = op.add(x, make.linear(merged, 32, 32))
    return {"x": x}, {"y": op.add(y, make.linear(op.relu(make.linear(make.norm(y, 32), 32, 56)), 56, 32))}


def _cnn(op: Any, make: _Layers, argument: Callable[..., Any]) -> Outputs:
    x = argument("batch", 3, "height", "width")
    y = op.relu(op.conv(x, make.weight(16, 3, 3, 3), make.weight(16), pads=[1, 1, 1, 1]))
    y = op.add(op.conv(y, make.weight(16, 16, 3, 3), pads=[1, 1, 1, 1]), y)
    y = op.relu(op.conv(y, make.weight(24, 16, 1, 1), make.weight(24)))
    return {"x": x}, {"y": make.linear(op.flatten(op.global_average_pool(y)), 24, 5)}


def _lstm(op: Any, make: _Layers, argument: Callable[..., Any]) -> Outputs:
    x = argument("length", "batch", 12)
    _, last, _ = op.lstm(
        x,
        make.weight(2, 64, 12),
        make.weight(2, 64, 16),
        make.weight(2, 128),
        hidden_size=16,
        direction="bidirectional",
    )
    flat = op.reshape(op.transpose(last, perm=[1, 0, 2]), op.const(make.np.array([0, 32])))
    return {"x": x}, {"y": make.linear(flat, 32, 5)}


def _branches(op: Any, make: _Layers, argument: Callable[..., Any]) -> Outputs:
    x = argument("batch", 24)
    y = op.relu(make.linear(x, 24, 48))
    positive = op.greater(op.reduce_sum(y, keepdims=0), op.const(make.np.float32(3)))
    one, two = (make.weight(48, 32) for _ in range(2))
    (z,) = op.if_(positive, then_branch=lambda: [op.matmul(y, one)], else_branch=lambda: [op.relu(op.matmul(y, two))])
    return {"x": x}, {"y": make.linear(z, 32, 5)}


BUILDERS = {"mlp": _mlp, "attention": _attention, "cnn": _cnn, "lstm": _lstm, "branches": _branches}


def _maker(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import numpy as np
        import onnx
        import spox.opset.ai.onnx.v17 as op
        from spox import Tensor, argument, build

        layers = _Layers(op, np)
        inputs, outputs = BUILDERS[name](op, layers, lambda *shape: argument(Tensor(np.float32, shape)))
        onnx.save(build(inputs, outputs), folder / "model.onnx")

    return make


MODELS = {"spox": {name: _maker(name) for name in BUILDERS}}
