"""Small models to make mutants of: what exporters write, in a few kilobytes each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper


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


def _model(graph: str, functions: str = "", **weights: Any) -> onnx.ModelProto:
    """A model in the textual syntax of ONNX; weights are arrays by name, or shapes of random ones."""
    opsets = '"" : 17, "own" : 1' if functions else '"" : 17'
    model = onnx.parser.parse_model(f"<ir_version: 9, opset_import: [{opsets}]> graph {graph} {functions}")
    for name, weight in weights.items():
        array = _random(*weight) if isinstance(weight, tuple) else np.asarray(weight)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def mlp() -> onnx.ModelProto:
    """Two linear layers with biases and a residual connection."""
    graph = """(float[b, 6] x) => (float[b, 6] y) {
        [fc1] h = Gemm <transB = 1> (x, w1, b1)
        [act] r = Relu (h)
        [fc2] z = Gemm (r, w2, b2)
        [add] y = Add (x, z)
    }"""
    return _model(graph, w1=(16, 6), b1=(16,), w2=(16, 6), b2=(6,))


def attention() -> onnx.ModelProto:
    """One transformer block of two heads over token ids, with a shape that is computed."""
    projections = "".join(
        f"""
        ["{name}/MatMul"] {name}1 = MatMul (n, w{name})
        ["{name}/Reshape"] {name}2 = Reshape ({name}1, heads)
        ["{name}/T"] {name}3 = Transpose <perm = {"[0, 2, 3, 1]" if name == "k" else "[0, 2, 1, 3]"}> ({name}2)"""
        for name in "qkv"
    )
    graph = f"""(int64[b, s] input_ids) => (float[b, s, 8] y) {{
        [embed] e = Gather (words, input_ids)
        [norm] n = LayerNormalization (e, scale, shift)
        [shape] shape = Shape (input_ids)
        [concat] heads = Concat <axis = 0> (shape, split){projections}
        [scores] scores = MatMul (q3, k3)
        [softmax] maps = Softmax <axis = -1> (scores)
        [context] c1 = MatMul (maps, v3)
        [back] c2 = Transpose <perm = [0, 2, 1, 3]> (c1)
        [join] c3 = Reshape (c2, joined)
        [out] o = MatMul (c3, wo)
        [add] y = Add (e, o)
    }}"""
    projected = {f"w{name}": (8, 8) for name in "qkvo"}
    constants = {"split": np.array([2, 4]), "joined": np.array([0, 0, 8])}
    return _model(graph, words=(10, 8), scale=np.ones(8, "f4"), shift=(8,), **projected, **constants)


def convolutions() -> onnx.ModelProto:
    """Two convolutions, a folded norm, pooling and a classifier."""
    graph = """(float[b, 3, 8, 8] x) => (float[b, 4] y) {
        [conv1] h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k1, b1)
        [bn] n = BatchNormalization (h, s, t, m, v)
        [relu] r = Relu (n)
        [conv2] g = Conv <group = 2, strides = [2, 2]> (r, k2)
        [pool] p = GlobalAveragePool (g)
        [flatten] f = Flatten (p)
        [fc] y = MatMul (f, w)
    }"""
    norm = {"s": np.ones(8, "f4"), "t": (8,), "m": (8,), "v": np.ones(8, "f4")}
    return _model(graph, k1=(8, 3, 3, 3), b1=(8,), k2=(6, 4, 3, 3), w=(6, 4), **norm)


def branches() -> onnx.ModelProto:
    """An If whose branches hold tables and take a value from outside."""
    table = f"value = float[12] t {{{', '.join(map(str, _random(12)))}}}"
    bodies = ", ".join(
        f"""{name}_branch = {name} () => (float[b, 12] {name}_y) {{
            {name}_t = Constant <{table}> ()
            ["{name}/Mul"] {name}_y = Mul (h, {name}_t)
        }}"""
        for name in ("then", "else")
    )
    graph = f"""(float[b, 6] x, bool flag) => (float[b, 6] y) {{
        [up] h = MatMul (x, w1)
        [if] g = If (flag) <{bodies}>
        [down] y = MatMul (g, w2)
    }}"""
    return _model(graph, w1=(6, 12), w2=(12, 6))


def loop() -> onnx.ModelProto:
    """A Loop of three turns over a state."""
    graph = """(float[b, 6] x) => (float[b, 6] y) {
        [up] a = MatMul (x, w1)
        [act] r = Relu (a)
        [down] z = MatMul (r, w2)
        [loop] y = Loop (turns, go, z) <
            body = body (int64 i, bool on, float[b, 6] state) => (bool still, float[b, 6] next) {
                [step] h = MatMul (state, w)
                [tanh] next = Tanh (h)
                [id] still = Identity (on)
            }
        >
    }"""
    return _model(graph, w=(6, 6), w1=(6, 12), w2=(12, 6), turns=np.array(3), go=np.array(True))


def function() -> onnx.ModelProto:
    """A function of the model's own."""
    graph = """(float[b, 6] x) => (float[b, 6] y) {
        [up] h = MatMul (x, w1)
        [silu] r = own.Silu (h)
        [down] y = MatMul (r, w2)
    }"""
    silu = '<domain: "own", opset_import: ["" : 17]> Silu (a) => (b) { s = Sigmoid (a) b = Mul (a, s) }'
    return _model(graph, silu, w1=(6, 12), w2=(12, 6))


def quantized() -> onnx.ModelProto:
    """Weights in eight bits."""
    graph = """(float[b, 6] x) => (float[b, 6] y) {
        [dq1] w1 = DequantizeLinear <axis = 1> (q1, s1, z1)
        [up] h = MatMul (x, w1)
        [act] r = Relu (h)
        [dq2] w2 = DequantizeLinear (q2, s2)
        [down] y = MatMul (r, w2)
    }"""
    draw = np.random.default_rng(0)
    first = {"q1": draw.integers(-9, 9, (6, 12), np.int8), "s1": np.full(12, 0.1, "f4"), "z1": np.zeros(12, np.int8)}
    return _model(graph, **first, q2=draw.integers(-9, 9, (12, 6), np.int8), s2=np.float32(0.1))


def recurrent() -> onnx.ModelProto:
    """A GRU and what reads its states."""
    graph = """(float[t, b, 4] x) => (float[t, b, 3] y) {
        [gru] states, "" = GRU <hidden_size = 5> (x, w, r)
        [squeeze] h = Squeeze (states, one)
        [down] y = MatMul (h, w2)
    }"""
    return _model(graph, w=(1, 15, 4), r=(1, 15, 5), one=np.array([1]), w2=(5, 3))


def texts() -> onnx.ModelProto:
    """Strings beside numbers."""
    model = mlp()
    model.graph.input.append(helper.make_tensor_value_info("word", TensorProto.STRING, ["b"]))
    model.graph.initializer.append(helper.make_tensor("table", TensorProto.STRING, [2], [b"a", b"b"]))
    model.graph.node.append(helper.make_node("Concat", ["table", "word"], ["words"], "join", axis=0))
    model.graph.output.append(helper.make_tensor_value_info("words", TensorProto.STRING, [None]))
    return model
