"""A decoder as Llama is one, of any depth: rotary positions, keys that queries share, gated neurons, RMS norms."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.attention import attend, heads, rope_tables, rotate_half
from tests.graphs.builder import Builder

WORDS, WIDTH, GROUPS, QUERIES, HEAD_DIM, FFN = 20, 12, 2, 2, 4, 18


def llama(layers: int) -> onnx.ModelProto:
    """Odd layers compute values first and keys last, so that their groups come in another order."""
    g = Builder("llama")
    ids = g.input("x", "B", "S", dtype=TensorProto.INT64)
    h = g("Gather", g.weight("model.embed_tokens.weight", WORDS, WIDTH), ids)
    cos, sin = rope_tables(g, HEAD_DIM)
    for k in range(layers):
        layer = f"model.layers.{k}"
        h = g("Add", h, _attention(g, _norm(g, h, f"{layer}.input_layernorm"), f"{layer}.self_attn", k % 2, cos, sin))
        x = _norm(g, h, f"{layer}.post_attention_layernorm")
        gate, up = (_dense(g, x, f"{layer}.mlp.{part}_proj", WIDTH, FFN) for part in ("gate", "up"))
        gated = g("Mul", g("Mul", gate, g("Sigmoid", gate)), up)
        h = g("Add", h, _dense(g, gated, f"{layer}.mlp.down_proj", FFN, WIDTH))
    g.output(_dense(g, _norm(g, h, "model.norm"), "lm_head", WIDTH, WORDS), "B", "S", WORDS)
    return g.model()


def _dense(g: Builder, x: str, name: str, rows: int, columns: int) -> str:
    return g("MatMul", x, g.weight(f"{name}.weight", rows, columns))


def _norm(g: Builder, x: str, name: str) -> str:
    mean = g("ReduceMean", g("Mul", x, x), axes=[-1])
    return g("Mul", g("Div", x, g("Sqrt", g("Add", mean, 1e-5))), g.weight(f"{name}.weight", WIDTH))


def _attention(g: Builder, x: str, name: str, turned: int, cos: str, sin: str) -> str:
    total = GROUPS * QUERIES
    widths = {"q": total, "k": GROUPS, "v": GROUPS}
    parts = {
        part: heads(g, _dense(g, x, f"{name}.{part}_proj", WIDTH, widths[part] * HEAD_DIM), widths[part], HEAD_DIM)
        for part in ("vqk" if turned else "qkv")
    }
    q, k = (rotate_half(g, parts[part], HEAD_DIM, cos, sin) for part in "qk")
    k, v = (_repeated(g, part) for part in (k, parts["v"]))
    mixed = g("Reshape", attend(g, q, k, v, HEAD_DIM), [0, 0, total * HEAD_DIM])
    return _dense(g, mixed, f"{name}.o_proj", total * HEAD_DIM, WIDTH)


def _repeated(g: Builder, x: str) -> str:
    """Every key head once a query head that reads it."""
    rows = g("Shape", x, start=2, end=3)
    wide = g("Expand", g("Unsqueeze", x, [2]), g("Concat", np.array([1, 1, QUERIES]), rows, np.array([1]), axis=0))
    return g("Reshape", wide, g("Concat", np.array([0, GROUPS * QUERIES]), rows, np.array([HEAD_DIM]), axis=0))
