"""A few lines to write a small ONNX graph with: seeded random weights, named by hand, the rest named by op."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Operand = str | np.ndarray | Sequence[int] | float | None
"""A value by its name, or a constant: an array, a list of integers (int64), one number (float32)."""

IR_VERSION = 10


class Builder:
    """Writes one graph.  Called with an op, operands and attributes, it adds a node and names what that makes."""

    def __init__(self, name: str, opset: int = 17) -> None:
        self.name = name
        self.opset = opset
        self.domains: dict[str, int] = {}
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.functions: list[onnx.FunctionProto] = []
        self._count: Counter[str] = Counter()

    def input(self, name: str, *dims: int | str, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, dims))
        return name

    def output(self, value: str, *dims: int | str | None, dtype: int = TensorProto.FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(value, dtype, dims))

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        """A weight whose numbers all differ, scaled so that activations stay of order one."""
        if name not in self.initializers:
            fan = max(1, int(np.prod(shape)) // max(shape)) if scale is None else 1
            values = self.rng.normal(size=shape) * (scale or 1.5 / np.sqrt(min(fan, 16)))
            self.initializers[name] = values.astype(np.float32)
        assert self.initializers[name].shape == shape
        return name

    def const(self, name: str, array: Any, dtype: Any = None) -> str:
        self.initializers[name] = np.asarray(array, dtype)
        return name

    def _operand(self, operand: Operand, op: str) -> str:
        if operand is None or isinstance(operand, str):
            return operand or ""
        dtype = np.float32 if isinstance(operand, float) else np.int64 if not isinstance(operand, np.ndarray) else None
        return self.const(self._name(f"{op}_c"), operand, dtype)

    def _name(self, stem: str) -> str:
        self._count[stem] += 1
        return f"{stem}{self._count[stem]}"

    def __call__(self, op: str, *operands: Operand, n: int = 1, domain: str = "", **attributes: Any) -> Any:
        label = self._name(op.lower())
        names = [self._operand(operand, label) for operand in operands]
        outputs = [label] if n == 1 else [f"{label}.{k}" for k in range(n)]
        self.nodes.append(helper.make_node(op, names, outputs, name=f"n_{label}", domain=domain, **attributes))
        return outputs[0] if n == 1 else outputs

    def model(self, *, full_check: bool = True) -> onnx.ModelProto:
        tensors = [numpy_helper.from_array(array, name) for name, array in self.initializers.items()]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, tensors)
        opsets = [helper.make_opsetid(domain, version) for domain, version in {"": self.opset, **self.domains}.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=self.functions)
        onnx.checker.check_model(model, full_check=full_check)
        return model


def linear(g: Builder, x: str, name: str, rows: int, columns: int, *, bias: bool = True) -> str:
    """MatMul with a weight `w_name`, plus a bias `b_name`."""
    y = g("MatMul", x, g.weight(f"w_{name}", rows, columns))
    return g("Add", y, g.weight(f"b_{name}", columns, scale=0.5)) if bias else y


def conv(
    g: Builder, x: str, name: str, inputs: int, outputs: int, k: int = 3, group: int = 1, **attributes: Any
) -> str:
    """Conv with bias that keeps the image's size."""
    w = g.weight(f"w_{name}", outputs, inputs // group, k, k)
    attributes = {"pads": [k // 2] * 4, **attributes}
    return g("Conv", x, w, g.weight(f"b_{name}", outputs, scale=0.5), group=group, kernel_shape=[k, k], **attributes)


def layer_norm(g: Builder, x: str, name: str, width: int) -> str:
    """LayerNormalization over the last axis, with weights that are not ones."""
    scale = g.const(f"{name}_scale", g.rng.uniform(0.5, 2, width), np.float32)
    return g("LayerNormalization", x, scale, g.weight(f"{name}_bias", width, scale=0.5), axis=-1)
