"""A classifier of two transformer blocks, run in milliseconds, with the names that the TorchScript exporter gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, HEADS, HEAD_DIM, FFN, CLASSES = 8, 2, 4, 12, 3


class _Builder:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def op(self, op: str, inputs: Sequence[str], scope: str, **attributes: object) -> str:
        name = f"/{scope}/{op}" if scope else f"/{op}"
        name += (
            f"_{sum(n.name.startswith(name) for n in self.nodes)}" if any(n.name == name for n in self.nodes) else ""
        )
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output_0"], name=name, **attributes))
        return f"{name}_output_0"

    def weight(self, name: str, *shape: int) -> str:
        array = self.rng.normal(size=shape).astype(np.float32) / max(shape[0], 1) ** 0.5
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        name = f"ints_{'_'.join(map(str, values))}"
        if all(w.name != name for w in self.weights):
            self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def linear(self, x: str, scope: str, units: int, summed: int) -> str:
        """The exporter loses the name of a Linear's weight and keeps its bias's."""
        lost = f"onnx::MatMul_{100 + sum(w.name.startswith('onnx::') for w in self.weights)}"
        y = self.op("MatMul", [x, self.weight(lost, summed, units)], scope)
        return self.op("Add", [self.weight(f"{scope.replace('/', '.')}.bias", units), y], scope)

    def norm(self, x: str, scope: str) -> str:
        name = scope.replace("/", ".")
        parameters = [self.weight(f"{name}.weight", HIDDEN), self.weight(f"{name}.bias", HIDDEN)]
        return self.op("LayerNormalization", [x, *parameters], scope, axis=-1)

    def split(self, x: str, scope: str, perm: Sequence[int]) -> str:
        y = self.op("Reshape", [x, self.ints(0, 0, HEADS, HEAD_DIM)], scope)
        return self.op("Transpose", [y], scope, perm=perm)

    def block(self, x: str, scope: str) -> str:
        width = HEADS * HEAD_DIM
        q, k, v = (
            self.split(self.linear(x, f"{scope}/attn/{part}", width, HIDDEN), f"{scope}/attn", perm)
            for part, perm in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3)))
        )
        scores = self.op("Softmax", [self.op("MatMul", [q, k], f"{scope}/attn")], f"{scope}/attn", axis=-1)
        mixed = self.op(
            "Transpose", [self.op("MatMul", [scores, v], f"{scope}/attn")], f"{scope}/attn", perm=(0, 2, 1, 3)
        )
        joined = self.op("Reshape", [mixed, self.ints(0, 0, width)], f"{scope}/attn")
        x = self.op("Add", [x, self.linear(joined, f"{scope}/attn/out", HIDDEN, width)], scope)
        x = self.norm(x, f"{scope}/norm1")
        wide = self.op("Relu", [self.linear(x, f"{scope}/fc1", FFN, HIDDEN)], scope)
        return self.norm(self.op("Add", [x, self.linear(wide, f"{scope}/fc2", HIDDEN, FFN)], scope), f"{scope}/norm2")


def classifier(*, states: bool = False) -> onnx.ModelProto:
    """Two blocks and a linear head; with `states`, the last hidden states are the only output."""
    b = _Builder()
    x = b.linear("x", "embed", HIDDEN, 5)
    for layer in range(2):
        x = b.block(x, f"layer.{layer}")
    shape = ["batch", "sequence", HIDDEN if states else CLASSES]
    if states:
        b.nodes[-1].output[0] = "states"
    else:
        b.linear(x, "head", CLASSES, HIDDEN)
        b.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        b.nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", 5])],
        [helper.make_tensor_value_info("states" if states else "logits", TensorProto.FLOAT, shape)],
        b.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def frozen() -> onnx.ModelProto:
    """A model in which every axis is an input or an output: nothing can go."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="only")],
        "frozen",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def averaged() -> onnx.ModelProto:
    """Two linear layers with a norm between: the only free axis is the width that the norm averages over."""
    b = _Builder()
    wide = b.op("MatMul", ["x", b.weight("up", 6, 16)], "up")
    normed = b.op("LayerNormalization", [wide, b.weight("scale", 16), b.weight("bias", 16)], "norm", axis=-1)
    b.op("MatMul", [normed, b.weight("down", 16, 3)], "down")
    b.nodes[-1].output[0] = "y"
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "time", size]) for n, size in (("x", 6), ("y", 3))
    )
    graph = helper.make_graph(b.nodes, "averaged", [x], [y], b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def convolutions(width: int) -> onnx.ModelProto:
    """Two convolutions with channels between."""
    b = _Builder()
    hidden = b.op("Relu", [b.op("Conv", ["x", b.weight("up", width, 3, 1, 1)], "up")], "act")
    b.op("Conv", [hidden, b.weight("down", 2, width, 1, 1)], "down")
    b.nodes[-1].output[0] = "y"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", c, 4, 4]) for n, c in (("x", 3), ("y", 2)))
    graph = helper.make_graph(b.nodes, "convolutions", [x], [y], b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
