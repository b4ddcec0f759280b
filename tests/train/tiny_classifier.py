"""A small classifier of texts, twice: as an ONNX file, and as torch functions with head gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.builder import Builder
from tests.graphs.text import WORDS

WIDTH, HEAD_DIM, FFN, CLASSES = 12, 4, 8, 3


@dataclass
class Tiny:
    """Attention and FFN layers on embeddings, the mean over tokens, and logits.

    Attributes:
        heads: Query heads a layer.
        shared: Query heads that share keys and values.
        layers: How many.
        twins: (layer, head, head): the second is made a copy of the first.
        weights: By the names of the initializers.
    """

    heads: int = 3
    shared: int = 1
    layers: int = 2
    twins: tuple[tuple[int, int, int], ...] = ()
    seed: int = 0
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        keys = self.heads // self.shared
        shapes = {"words": (len(WORDS), WIDTH), "w_out": (WIDTH, CLASSES), "b_out": (CLASSES,)}
        for k in range(self.layers):
            shapes |= {f"q{k}": (WIDTH, self.heads * HEAD_DIM), f"o{k}": (self.heads * HEAD_DIM, WIDTH)}
            shapes |= {f"{part}{k}": (WIDTH, keys * HEAD_DIM) for part in "kv"}
            shapes |= {f"up{k}": (WIDTH, FFN), f"bias{k}": (FFN,), f"down{k}": (FFN, WIDTH)}
        self.weights = {name: rng.normal(size=s, scale=0.35).astype(np.float32) for name, s in shapes.items()}
        for layer, one, other in self.twins:
            a, b = (slice(head * HEAD_DIM, (head + 1) * HEAD_DIM) for head in (one, other))
            for part in "qkv":
                self.weights[f"{part}{layer}"][:, b] = self.weights[f"{part}{layer}"][:, a]

    def onnx(self) -> onnx.ModelProto:
        """The file."""
        g = Builder("tiny")
        for name, array in self.weights.items():
            g.const(name, array)
        ids = g.input("input_ids", "batch", "sequence", dtype=TensorProto.INT64)
        mask = g.input("attention_mask", "batch", "sequence", dtype=TensorProto.INT64)
        visible = g("Cast", mask, to=TensorProto.FLOAT)
        bias = g("Mul", g("Sub", g("Unsqueeze", visible, [1, 2]), 1.0), 1e4)
        x = g("Gather", "words", ids)
        for k in range(self.layers):
            x = g("Add", x, self._attention(g, x, bias, k))
            hidden = g("Tanh", g("Add", g("MatMul", x, f"up{k}"), f"bias{k}"))
            x = g("Add", x, g("MatMul", hidden, f"down{k}"))
        weight = g("Unsqueeze", visible, [2])
        pooled = g("Div", g("ReduceSum", g("Mul", x, weight), [1], keepdims=0), g("ReduceSum", weight, [1], keepdims=0))
        y = g("Add", g("MatMul", pooled, "w_out"), "b_out")
        g.output(y, "batch", CLASSES)
        return g.model()

    def _attention(self, g: Builder, x: str, bias: str, k: int) -> str:
        keys = self.heads // self.shared

        def split(part: str, heads: int) -> str:
            flat = g("Reshape", g("MatMul", x, f"{part}{k}"), [0, 0, heads, HEAD_DIM])
            return str(g("Transpose", flat, perm=[0, 2, 1, 3]))

        def repeated(value: str) -> str:
            if self.shared == 1:
                return value
            shape = g("Shape", value)
            ends = [g("Gather", shape, [at]) for at in (0, 2)]
            one = g("Unsqueeze", value, [2])
            wide = g("Expand", one, g("Concat", ends[0], [keys, self.shared], ends[1], [HEAD_DIM], axis=0))
            return str(g("Reshape", wide, g("Concat", ends[0], [self.heads], ends[1], [HEAD_DIM], axis=0)))

        key, value = (repeated(split(part, keys)) for part in "kv")
        scores = g("MatMul", split("q", self.heads), g("Transpose", key, perm=[0, 1, 3, 2]))
        chances = g("Softmax", g("Add", g("Mul", scores, HEAD_DIM**-0.5), bias), axis=-1)
        mixed = g("Transpose", g("MatMul", chances, value), perm=[0, 2, 1, 3])
        return str(g("MatMul", g("Reshape", mixed, [0, 0, self.heads * HEAD_DIM]), f"o{k}"))

    def logits(self, feeds: Mapping[str, np.ndarray], weights: Mapping[str, Any], gates: Any) -> Any:
        """The same in torch, context times `gates [layers, heads]`."""
        import torch

        ids, mask = torch.tensor(feeds["input_ids"]), torch.tensor(feeds["attention_mask"]).float()
        bias = (mask[:, None, None] - 1) * 1e4
        x = weights["words"][ids]
        for k in range(self.layers):

            def split(part: str, x: Any = x, k: int = k) -> Any:
                return (x @ weights[f"{part}{k}"]).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)

            key, value = (split(part).repeat_interleave(self.shared, dim=1) for part in "kv")
            chances = torch.softmax(split("q") @ key.transpose(2, 3) * HEAD_DIM**-0.5 + bias, dim=-1)
            context = chances @ value * gates[k][:, None, None]
            x = x + context.transpose(1, 2).flatten(2) @ weights[f"o{k}"]
            x = x + torch.tanh(x @ weights[f"up{k}"] + weights[f"bias{k}"]) @ weights[f"down{k}"]
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled @ weights["w_out"] + weights["b_out"]


def texts(count: int, *, labels: bool = True, seed: int = 1) -> list[dict[str, Any]]:
    """Sentences whose class is told by their words."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        label = int(rng.integers(CLASSES))
        words = [*rng.choice(WORDS[4:], int(rng.integers(2, 9))), *[WORDS[4 + label]] * 2]
        rows.append({"text": " ".join(rng.permutation(words)), **({"label": label} if labels else {})})
    return rows
