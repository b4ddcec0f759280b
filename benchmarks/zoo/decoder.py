"""A Llama-like decoder written node by node with onnx.helper: any size, random weights in a data file, no torch.

RMSNorm is decomposed, rotary positions and the causal mask are computed from the length of the input, keys and values
are repeated for grouped queries by Unsqueeze, Expand and Reshape, the FFN is a SwiGLU, and the head is not tied: what
the usual exporters write for such a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """How large a decoder is."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Numbers in the weights."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden


LARGE = DecoderShape(layers=24, hidden=1024, heads=16, kv_heads=4, head_dim=64, ffn=2816, vocabulary=32000)


def narrow(layers: int) -> DecoderShape:
    """The same graph with hardly any weights, to see what its length alone costs."""
    return DecoderShape(layers, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=128, vocabulary=256)


def write_decoder(shape: DecoderShape, path: Path, seed: int = 0, *, half: bool = False) -> None:
    """Write `path` and, beside it, `NAME.data` with the weights, one tensor in memory at a time.

    Args:
        shape: How large it is.
        path: The model file.
        seed: Of the weights.
        half: Whether weights and activations are float16; positions are computed in float32 all the same.
    """
    with path.with_name(f"{path.name}.data").open("wb") as data:
        dtype = np.dtype(np.float16 if half else np.float32)
        graph = _Writer(shape, data, np.random.default_rng(seed), dtype).graph()
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


class _Writer:
    """Collects nodes and initializers; a value is known by its name."""

    def __init__(self, shape: DecoderShape, data: IO[bytes], rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
        self.shape, self.data, self.rng, self.dtype = shape, data, rng, dtype
        self.onnx_type = helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def graph(self) -> onnx.GraphProto:
        s = self.shape
        x = self.op("Gather", self.weight("embed.weight", s.vocabulary, s.hidden), "input_ids", name="embed")
        self.tables()
        for k in range(s.layers):
            x = self.layer(f"layers.{k}", x)
        x = self.norm("norm", x)
        head = self.weight("lm_head.weight", s.hidden, s.vocabulary)
        self.nodes.append(helper.make_node("MatMul", [x, head], ["logits"], "lm_head"))
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
        logits = helper.make_tensor_value_info("logits", self.onnx_type, ["batch", "sequence", s.vocabulary])
        return helper.make_graph(self.nodes, "decoder", [ids], [logits], self.initializers)

    # ---- parts -----------------------------------------------------------------------------------------------------

    def tables(self) -> None:
        """Cosines, sines and the causal mask for as many positions as the input has."""
        half = self.shape.head_dim // 2
        rates = 10000.0 ** (-np.arange(half, dtype=np.float32) / half)
        lengths = self.op("Shape", "input_ids", name="lengths")
        self.batch = self.op("Slice", lengths, self.ints([0]), self.ints([1]), name="batch")
        self.sequence = self.op("Slice", lengths, self.ints([1]), self.ints([2]), name="sequence")
        scalar = self.op("Squeeze", self.sequence, name="sequence/scalar")
        positions = self.op("Range", self.ints(0), scalar, self.ints(1), name="positions")
        column = self.op("Unsqueeze", positions, self.ints([1]), name="positions/column")
        floats = self.op("Cast", column, name="positions/float", to=TensorProto.FLOAT)
        angles = self.op("Mul", floats, self.constant("rotary.rates", rates), name="rotary/angles")
        both = self.op("Concat", angles, angles, name="rotary/both", axis=-1)
        self.cos, self.sin = (self.narrowed(self.op(k, both, name=f"rotary/{k.lower()}")) for k in ("Cos", "Sin"))
        visible = self.op("LessOrEqual", positions, column, name="mask/seen")
        hidden = self.floats(-1e9 if self.dtype == np.float32 else -1e4)
        self.mask = self.op("Where", visible, self.floats(0.0), hidden, name="mask")

    def narrowed(self, x: str) -> str:
        """A float32 value in the type of the weights."""
        if self.dtype == np.float32:
            return x
        return self.op("Cast", x, name=f"{x.removesuffix('/out')}/cast", to=self.onnx_type)

    def layer(self, at: str, x: str) -> str:
        x = self.op("Add", x, self.attention(f"{at}.attention", self.norm(f"{at}.norm1", x)), name=f"{at}/add1")
        return self.op("Add", x, self.ffn(f"{at}.ffn", self.norm(f"{at}.norm2", x)), name=f"{at}/add2")

    def norm(self, at: str, x: str) -> str:
        square = self.op("Pow", x, self.floats(2.0), name=f"{at}/pow")
        mean = self.op("ReduceMean", square, self.ints([-1]), name=f"{at}/mean", keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.floats(1e-6), name=f"{at}/add"), name=f"{at}/sqrt")
        normal = self.op("Mul", x, self.op("Reciprocal", root, name=f"{at}/reciprocal"), name=f"{at}/mul")
        gains = 1 + 0.1 * self.rng.standard_normal(self.shape.hidden, dtype=np.float32)
        scale = self.constant(f"{at}.weight", gains.astype(self.dtype))
        return self.op("Mul", scale, normal, name=f"{at}/scale")

    def attention(self, at: str, x: str) -> str:
        s = self.shape
        q = self.rotated(f"{at}.q", self.heads(f"{at}.q", x, s.heads))
        k, v = (self.heads(f"{at}.{name}", x, s.kv_heads) for name in ("k", "v"))
        k, v = self.repeated(f"{at}.k", self.rotated(f"{at}.k", k)), self.repeated(f"{at}.v", v)
        keys = self.op("Transpose", k, name=f"{at}/keys", perm=[0, 1, 3, 2])
        scores = self.op("MatMul", q, keys, name=f"{at}/scores")
        scores = self.op("Mul", scores, self.floats(1 / math.sqrt(s.head_dim)), name=f"{at}/scaled")
        scores = self.op("Add", scores, self.mask, name=f"{at}/masked")
        context = self.op("MatMul", self.op("Softmax", scores, name=f"{at}/softmax", axis=-1), v, name=f"{at}/context")
        context = self.op("Transpose", context, name=f"{at}/back", perm=[0, 2, 1, 3])
        flat = self.op("Reshape", context, self.target(f"{at}/flat", self.sequence, [-1]), name=f"{at}/flat")
        return self.linear(f"{at}.o", flat, s.heads * s.head_dim, s.hidden)

    def heads(self, at: str, x: str, count: int) -> str:
        flat = self.linear(at, x, self.shape.hidden, count * self.shape.head_dim)
        target = self.target(f"{at}/split", self.sequence, [count, self.shape.head_dim])
        split = self.op("Reshape", flat, target, name=f"{at}/split")
        return self.op("Transpose", split, name=f"{at}/transpose", perm=[0, 2, 1, 3])

    def rotated(self, at: str, x: str) -> str:
        half, end, axis = self.ints([self.shape.head_dim // 2]), self.ints([np.iinfo(np.int64).max]), self.ints([-1])
        low = self.op("Slice", x, self.ints([0]), half, axis, name=f"{at}/low")
        high = self.op("Slice", x, half, end, axis, name=f"{at}/high")
        turned = self.op("Concat", self.op("Neg", high, name=f"{at}/neg"), low, name=f"{at}/turned", axis=-1)
        straight = self.op("Mul", x, self.cos, name=f"{at}/cos")
        return self.op("Add", straight, self.op("Mul", turned, self.sin, name=f"{at}/sin"), name=f"{at}/rotated")

    def repeated(self, at: str, x: str) -> str:
        """`[batch, kv_heads, …]` to `[batch, heads, …]`, every head of keys or values for several heads of queries."""
        s = self.shape
        lone = self.op("Unsqueeze", x, self.ints([2]), name=f"{at}/lone")
        groups = self.ints([s.kv_heads, s.heads // s.kv_heads])
        target = self.op("Concat", self.batch, groups, *self.tail(), name=f"{at}/expand/shape", axis=0)
        wide = self.op("Expand", lone, target, name=f"{at}/expand")
        target = self.op("Concat", self.batch, self.ints([s.heads]), *self.tail(), name=f"{at}/merge/shape", axis=0)
        return self.op("Reshape", wide, target, name=f"{at}/merge")

    def tail(self) -> tuple[str, str]:
        return self.sequence, self.ints([self.shape.head_dim])

    def ffn(self, at: str, x: str) -> str:
        s = self.shape
        gate = self.linear(f"{at}.gate", x, s.hidden, s.ffn)
        gate = self.op("Mul", gate, self.op("Sigmoid", gate, name=f"{at}/sigmoid"), name=f"{at}/silu")
        product = self.op("Mul", gate, self.linear(f"{at}.up", x, s.hidden, s.ffn), name=f"{at}/product")
        return self.linear(f"{at}.down", product, s.ffn, s.hidden)

    # ---- nodes and constants ---------------------------------------------------------------------------------------

    def target(self, at: str, length: str, rest: Sequence[int]) -> str:
        return self.op("Concat", self.batch, length, self.ints(rest), name=f"{at}/shape", axis=0)

    def linear(self, at: str, x: str, source: int, target: int) -> str:
        return self.op("MatMul", x, self.weight(f"{at}.weight", source, target), name=f"{at}/matmul")

    def op(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}/out"], name, **attributes))
        return f"{name}/out"

    def ints(self, values: int | Sequence[int]) -> str:
        return self.constant(f"int.{values}".replace(" ", ""), np.array(values, dtype=np.int64))

    def floats(self, value: float) -> str:
        return self.constant(f"float.{value}", np.array(value, dtype=self.dtype))

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        if all(known.name != name for known in self.initializers):
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, rows: int, columns: int) -> str:
        """A random matrix in the data file, large enough for what it makes to be of the size of what it is given."""
        array = self.rng.standard_normal((rows, columns), dtype=np.float32)
        array *= 1 / math.sqrt(rows) if name != "embed.weight" else 1
        array = array.astype(self.dtype, copy=False)
        tensor = TensorProto(name=name, dims=array.shape, data_type=self.onnx_type)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": Path(self.data.name).name, "offset": self.data.tell(), "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        array.tofile(self.data)
        self.initializers.append(tensor)
        return name
