"""Small models to make mutants of: what exporters write, in a few kilobytes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Weights = Mapping[str, Any]


def models() -> dict[str, Callable[[], onnx.ModelProto]]:
    """Every model by name."""
    return {
        "mlp": mlp,
        "attention": attention,
        "convolutions": convolutions,
        "branches": branches,
        "loop": loop,
        "function": function,
        "quantized": quantized,
        "recurrent": recurrent,
        "texts": texts,
    }


def _random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype("f4") / 2


def _value(name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Weights,
    *domains: str,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


def mlp() -> onnx.ModelProto:
    """Two linear layers with biases and a residual connection."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "fc1", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"], "fc2"),
        helper.make_node("Add", ["x", "z"], ["y"], "add"),
    ]
    weights = {"w1": _random(16, 6), "b1": _random(16), "w2": _random(16, 6), "b2": _random(6)}
    return _model(nodes, [_value("x", ["b", 6])], [_value("y", ["b", 6])], weights)


def attention() -> onnx.ModelProto:
    """One transformer block of two heads over token ids, with a shape that is computed."""
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["e"], "embed"),
        helper.make_node("LayerNormalization", ["e", "scale", "shift"], ["n"], "norm"),
        helper.make_node("Shape", ["input_ids"], ["shape"], "shape"),
        helper.make_node("Concat", ["shape", "split"], ["heads"], "concat", axis=0),
    ]
    for name in "qkv":
        perm = (0, 2, 3, 1) if name == "k" else (0, 2, 1, 3)
        nodes += [
            helper.make_node("MatMul", ["n", f"w{name}"], [f"{name}1"], f"{name}/MatMul"),
            helper.make_node("Reshape", [f"{name}1", "heads"], [f"{name}2"], f"{name}/Reshape"),
            helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], f"{name}/T", perm=perm),
        ]
    nodes += [
        helper.make_node("MatMul", ["q3", "k3"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["maps"], "softmax", axis=-1),
        helper.make_node("MatMul", ["maps", "v3"], ["c1"], "context"),
        helper.make_node("Transpose", ["c1"], ["c2"], "back", perm=(0, 2, 1, 3)),
        helper.make_node("Reshape", ["c2", "joined"], ["c3"], "join"),
        helper.make_node("MatMul", ["c3", "wo"], ["o"], "out"),
        helper.make_node("Add", ["e", "o"], ["y"], "add"),
    ]
    weights = {
        **{"words": _random(10, 8), "scale": np.ones(8, "f4"), "shift": _random(8)},
        **{f"w{name}": _random(8, 8) for name in "qkvo"},
        **{"split": np.array([2, 4]), "joined": np.array([0, 0, 8])},
    }
    return _model(nodes, [_value("input_ids", ["b", "s"], TensorProto.INT64)], [_value("y", ["b", "s", 8])], weights)


def convolutions() -> onnx.ModelProto:
    """Two convolutions, a folded norm, pooling and a classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "k1", "b1"], ["h"], "conv1", kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
        helper.make_node("BatchNormalization", ["h", "s", "t", "m", "v"], ["n"], "bn"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "k2"], ["g"], "conv2", group=2, strides=(2, 2)),
        helper.make_node("GlobalAveragePool", ["g"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], "fc"),
    ]
    weights = {
        **{"k1": _random(8, 3, 3, 3), "b1": _random(8), "k2": _random(6, 4, 3, 3), "w": _random(6, 4)},
        **{"s": np.ones(8, "f4"), "t": _random(8), "m": _random(8), "v": np.ones(8, "f4")},
    }
    return _model(nodes, [_value("x", ["b", 3, 8, 8])], [_value("y", ["b", 4])], weights)


def branches() -> onnx.ModelProto:
    """An If whose branches hold tables and take a value from outside."""
    bodies = []
    for name in ("then", "else"):
        table = helper.make_node("Constant", [], [f"{name}_t"], value=numpy_helper.from_array(_random(12), "t"))
        scaled = helper.make_node("Mul", ["h", f"{name}_t"], [f"{name}_y"], f"{name}/Mul")
        bodies.append(helper.make_graph([table, scaled], name, [], [_value(f"{name}_y", ["b", 12])]))
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "up"),
        helper.make_node("If", ["flag"], ["g"], "if", then_branch=bodies[0], else_branch=bodies[1]),
        helper.make_node("MatMul", ["g", "w2"], ["y"], "down"),
    ]
    inputs = [_value("x", ["b", 6]), _value("flag", [], TensorProto.BOOL)]
    return _model(nodes, inputs, [_value("y", ["b", 6])], {"w1": _random(6, 12), "w2": _random(12, 6)})


def loop() -> onnx.ModelProto:
    """A Loop of three turns over a state."""
    nodes = [
        helper.make_node("MatMul", ["state", "w"], ["h"], "step"),
        helper.make_node("Tanh", ["h"], ["next"], "tanh"),
        helper.make_node("Identity", ["on"], ["still"], "id"),
    ]
    inputs = [_value("i", [], TensorProto.INT64), _value("on", [], TensorProto.BOOL), _value("state", ["b", 6])]
    body = helper.make_graph(nodes, "body", inputs, [_value("still", [], TensorProto.BOOL), _value("next", ["b", 6])])
    outer = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "up"),
        helper.make_node("Relu", ["a"], ["r"], "act"),
        helper.make_node("MatMul", ["r", "w2"], ["z"], "down"),
        helper.make_node("Loop", ["turns", "go", "z"], ["y"], "loop", body=body),
    ]
    weights = {
        **{"w": _random(6, 6), "w1": _random(6, 12), "w2": _random(12, 6)},
        **{"turns": np.array(3), "go": np.array(True)},
    }
    return _model(outer, [_value("x", ["b", 6])], [_value("y", ["b", 6])], weights)


def function() -> onnx.ModelProto:
    """A function of the model's own."""
    body = [
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["b"]),
    ]
    silu = helper.make_function("own", "Silu", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "up"),
        helper.make_node("Silu", ["h"], ["r"], "silu", domain="own"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "down"),
    ]
    weights = {"w1": _random(6, 12), "w2": _random(12, 6)}
    return _model(nodes, [_value("x", ["b", 6])], [_value("y", ["b", 6])], weights, "own", functions=[silu])


def quantized() -> onnx.ModelProto:
    """Weights in eight bits."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["w1"], "dq1", axis=1),
        helper.make_node("MatMul", ["x", "w1"], ["h"], "up"),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("DequantizeLinear", ["q2", "s2"], ["w2"], "dq2"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "down"),
    ]
    draw = np.random.default_rng(0)
    weights = {
        **{"q1": draw.integers(-9, 9, (6, 12), np.int8), "s1": np.full(12, 0.1, "f4"), "z1": np.zeros(12, np.int8)},
        **{"q2": draw.integers(-9, 9, (12, 6), np.int8), "s2": np.float32(0.1)},
    }
    return _model(nodes, [_value("x", ["b", 6])], [_value("y", ["b", 6])], weights)


def recurrent() -> onnx.ModelProto:
    """A GRU and what reads its states."""
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["states", ""], "gru", hidden_size=5),
        helper.make_node("Squeeze", ["states", "one"], ["h"], "squeeze"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], "down"),
    ]
    weights = {"w": _random(1, 15, 4), "r": _random(1, 15, 5), "one": np.array([1]), "w2": _random(5, 3)}
    return _model(nodes, [_value("x", ["t", "b", 4])], [_value("y", ["t", "b", 3])], weights)


def texts() -> onnx.ModelProto:
    """Strings beside numbers."""
    model = mlp()
    model.graph.input.append(_value("word", ["b"], TensorProto.STRING))
    model.graph.initializer.append(helper.make_tensor("table", TensorProto.STRING, [2], [b"a", b"b"]))
    model.graph.node.append(helper.make_node("Concat", ["table", "word"], ["words"], "join", axis=0))
    model.graph.output.append(_value("words", [None], TensorProto.STRING))
    return model
