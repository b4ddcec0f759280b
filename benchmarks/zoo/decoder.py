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
MICROSOFT = "com.microsoft"

BLOCK = 128
"""Rows of a weight in 4 bits that share a scale."""

POOL = 4_194_301
"""A larger weight repeats so many random numbers, from another place on: a prime, so that no two rows are alike."""

SPREAD = 4.6
"""The standard deviation of whole numbers from -8 to 7."""


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


def write_decoder(
    shape: DecoderShape, path: Path, seed: int = 0, *, half: bool = False, four_bits: bool = False
) -> None:
    """Write `path` and, beside it, `NAME.data` with the weights, one tensor in memory at a time.

    Args:
        shape: How large it is.
        path: The model file.
        seed: Of the weights.
        half: Whether weights and activations are float16; positions are computed in float32 all the same.
        four_bits: Whether all matrices but the table of tokens are in 4 bits, a scale for every 128 rows (MatMulNBits).
    """
    with path.with_name(f"{path.name}.data").open("wb") as data:
        dtype = np.dtype(np.float16 if half else np.float32)
        graph = _Writer(shape, data, np.random.default_rng(seed), dtype, four_bits).graph()
    opset = [helper.make_opsetid("", OPSET)]
    if four_bits:
        opset.append(helper.make_opsetid(MICROSOFT, 1))
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


class _Writer:
    """Collects nodes and initializers; a value is known by its name, a number or a list of them is a constant."""

    def __init__(
        self, shape: DecoderShape, data: IO[bytes], rng: np.random.Generator, dtype: np.dtype[Any], four_bits: bool
    ) -> None:
        self.four_bits = four_bits
        self.shape, self.data, self.rng, self.dtype = shape, data, rng, dtype
        self.onnx_type = helper.np_dtype_to_tensor_dtype(dtype)
        self.pools: dict[float, npt.NDArray[Any]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def graph(self) -> onnx.GraphProto:
        s = self.shape
        x = self("Gather", self.weight("embed.weight", s.vocabulary, s.hidden), "input_ids")
        self.tables()
        for k in range(s.layers):
            x = self.layer(f"layers.{k}", x)
        self.linear("lm_head", self.norm("norm", x), s.hidden, s.vocabulary)
        self.nodes[-1].output[0] = "logits"
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
        logits = helper.make_tensor_value_info("logits", self.onnx_type, ["batch", "sequence", s.vocabulary])
        return helper.make_graph(self.nodes, "decoder", [ids], [logits], list(self.initializers.values()))

    # ---- parts -----------------------------------------------------------------------------------------------------

    def tables(self) -> None:
        """Cosines, sines and the causal mask for as many positions as the input has."""
        half = self.shape.head_dim // 2
        lengths = self("Shape", "input_ids")
        self.batch, self.sequence = self("Slice", lengths, [0], [1]), self("Slice", lengths, [1], [2])
        positions = self("Range", 0, self("Squeeze", self.sequence), 1)
        column = self("Unsqueeze", positions, [1])
        rates = 10000.0 ** (-np.arange(half, dtype=np.float32) / half)
        angles = self("Mul", self("Cast", column, to=TensorProto.FLOAT), rates)
        angles = self("Concat", angles, angles, axis=-1)
        self.cos, self.sin = self("Cos", angles), self("Sin", angles)
        if self.dtype != np.float32:
            self.cos, self.sin = (self("Cast", x, to=self.onnx_type) for x in (self.cos, self.sin))
        hidden = -1e9 if self.dtype == np.float32 else -1e4
        self.mask = self("Where", self("LessOrEqual", positions, column), 0.0, hidden)

    def layer(self, at: str, x: str) -> str:
        s, y = self.shape, self.norm(f"{at}.norm1", x)
        q = self.rotated(self.heads(f"{at}.attention.q", y, s.heads))
        k, v = (self.heads(f"{at}.attention.{name}", y, s.kv_heads) for name in ("k", "v"))
        k, v = self.repeated(self.rotated(k)), self.repeated(v)
        scores = self("Mul", self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2])), 1 / math.sqrt(s.head_dim))
        maps = self("Softmax", self("Add", scores, self.mask), axis=-1)
        context = self("Transpose", self("MatMul", maps, v), perm=[0, 2, 1, 3])
        flat = self("Reshape", context, self("Concat", self.batch, self.sequence, [-1], axis=0))
        x = self("Add", x, self.linear(f"{at}.attention.o", flat, s.heads * s.head_dim, s.hidden))
        y = self.norm(f"{at}.norm2", x)
        gate = self.linear(f"{at}.ffn.gate", y, s.hidden, s.ffn)
        gate = self("Mul", gate, self("Sigmoid", gate))
        product = self("Mul", gate, self.linear(f"{at}.ffn.up", y, s.hidden, s.ffn))
        return self("Add", x, self.linear(f"{at}.ffn.down", product, s.ffn, s.hidden))

    def norm(self, at: str, x: str) -> str:
        mean = self("ReduceMean", self("Pow", x, 2.0), [-1], keepdims=1)
        normal = self("Mul", x, self("Reciprocal", self("Sqrt", self("Add", mean, 1e-6))))
        gains = 1 + 0.1 * self.rng.standard_normal(self.shape.hidden, dtype=np.float32)
        return self("Mul", self.constant(gains.astype(self.dtype), f"{at}.weight"), normal)

    def heads(self, at: str, x: str, count: int) -> str:
        flat = self.linear(at, x, self.shape.hidden, count * self.shape.head_dim)
        target = self("Concat", self.batch, self.sequence, [count, self.shape.head_dim], axis=0)
        return self("Transpose", self("Reshape", flat, target), perm=[0, 2, 1, 3])

    def rotated(self, x: str) -> str:
        half, end = self.shape.head_dim // 2, np.iinfo(np.int64).max
        low, high = self("Slice", x, [0], [half], [-1]), self("Slice", x, [half], [end], [-1])
        turned = self("Concat", self("Neg", high), low, axis=-1)
        return self("Add", self("Mul", x, self.cos), self("Mul", turned, self.sin))

    def repeated(self, x: str) -> str:
        """`[batch, kv_heads, …]` to `[batch, heads, …]`, every head of keys or values for several heads of queries."""
        s, tail = self.shape, (self.sequence, [self.shape.head_dim])
        target = self("Concat", self.batch, [s.kv_heads, s.heads // s.kv_heads], *tail, axis=0)
        wide = self("Expand", self("Unsqueeze", x, [2]), target)
        return self("Reshape", wide, self("Concat", self.batch, [s.heads], *tail, axis=0))

    # ---- nodes and constants ---------------------------------------------------------------------------------------

    def __call__(self, kind: str, *operands: str | float | Sequence[int] | npt.NDArray[Any], **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}/out"], name, **attributes))
        return f"{name}/out"

    def linear(self, at: str, x: str, source: int, target: int) -> str:
        if not self.four_bits:
            return self("MatMul", x, self.weight(f"{at}.weight", source, target))
        stated = {"K": source, "N": target, "bits": 4, "block_size": BLOCK, "domain": MICROSOFT}
        return self("MatMulNBits", x, *self.packed(f"{at}.weight", source, target), **stated)

    def constant(self, value: float | Sequence[int] | npt.NDArray[Any], name: str = "") -> str:
        if not isinstance(value, np.ndarray):
            name = f"constant.{value}".replace(" ", "")
            value = np.array(value, dtype=self.dtype if isinstance(value, float) else np.int64)
        name = name or f"constant.{len(self.initializers)}"
        self.initializers.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, rows: int, columns: int) -> str:
        """A random matrix in the data file, large enough for what it makes to be of the size of what it is given."""
        scale = 1 / math.sqrt(rows) if name != "embed.weight" else 1.0
        if rows * columns <= POOL:
            array = self.rng.standard_normal((rows, columns), dtype=np.float32)
            array *= scale
            return self.stored(name, array.astype(self.dtype, copy=False))
        if scale not in self.pools:
            numbers = self.rng.standard_normal(POOL, dtype=np.float32) * np.float32(scale)
            self.pools[scale] = numbers.astype(self.dtype)
        pool = np.roll(self.pools[scale], self.rng.integers(POOL))
        return self.stored(name, np.resize(pool, (rows, columns)))

    def packed(self, name: str, rows: int, columns: int) -> tuple[str, str]:
        """A random matrix in 4 bits and its scales, as `MatMulNBits` takes them."""
        blocks = -(-rows // BLOCK)
        pairs = self.rng.integers(0, 256, (columns, blocks, BLOCK // 2), dtype=np.uint8)
        scales = self.rng.uniform(0.8, 1.2, (columns, blocks)) / (SPREAD * math.sqrt(rows))
        return self.stored(name, pairs), self.stored(f"{name}.scales", scales.astype(self.dtype))

    def stored(self, name: str, array: npt.NDArray[Any]) -> str:
        """A weight that lies in the data file."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, dims=array.shape, data_type=kind)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": Path(self.data.name).name, "offset": self.data.tell(), "length": array.nbytes}
        for key, entry in place.items():
            tensor.external_data.add(key=key, value=str(entry))
        array.tofile(self.data)
        self.initializers[name] = tensor
        return name
