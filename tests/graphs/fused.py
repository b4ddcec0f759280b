"""Small models with fused ops: attention and norms as ai.onnx 23 and as com.microsoft spell them.

Everywhere 10 is the hidden size, 3 the heads, 4 the head_dim (8 under rotation, 16 or 32 in GroupQueryAttention), 7 the
input and 5 the output width, 14 the FFN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.builder import Builder, linear

E, H, D, F = 10, 3, 4, 14
MICROSOFT = "com.microsoft"


def contrib(name: str, opset: int = 17) -> Builder:
    """A graph that may use the ops of ONNX Runtime."""
    g = Builder(name, opset)
    g.domains[MICROSOFT] = 1
    return g


def stem(g: Builder) -> str:
    """An input and the first linear layer, so that the hidden size is free."""
    return linear(g, g.input("x", "B", "S", 7), "in", 7, E)


def finish(g: Builder, h: str) -> onnx.ModelProto:
    """The last linear layer and the output."""
    g.output(linear(g, h, "out", E, 5), "B", "S", 5)
    return g.model()


def split_heads(g: Builder, x: str, heads: int = H, width: int = D) -> str:
    """[B, S, heads·width] -> [B, heads, S, width]."""
    return g("Transpose", g("Reshape", x, [0, 0, heads, width]), perm=[0, 2, 1, 3])


def projected(g: Builder, h: str, widths: tuple[int, int, int], *, bias: bool = True) -> list[str]:
    """Q, K and V."""
    return [linear(g, h, name, E, width, bias=bias) for name, width in zip("qkv", widths, strict=True)]


def microsoft(g: Builder, op: str, *operands: Any, n: int = 1, **attributes: Any) -> Any:
    """A node of com.microsoft."""
    return g(op, *operands, n=n, domain=MICROSOFT, **attributes)


# ---- ai.onnx ---------------------------------------------------------------------------------------------------------


def onnx_attention() -> onnx.ModelProto:
    """Three axes an operand, V wider than Q and K, no scale stated."""
    g = Builder("onnx_attention", 23)
    h = stem(g)
    q, k, v = projected(g, h, (H * D, H * D, H * 6))
    y = g("Attention", q, k, v, q_num_heads=H, kv_num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", H * 6, E)))


def onnx_attention_4d() -> onnx.ModelProto:
    """Four axes an operand, a mask, the scores as a second output."""
    g = Builder("onnx_attention_4d", 23)
    h = stem(g)
    mask = g.input("mask", "B", 1, "S", "S")
    q, k, v = (split_heads(g, x) for x in projected(g, h, (H * D,) * 3))
    y, *_, scores = g("Attention", q, k, v, mask, n=4, scale=0.3)
    merged = g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), [0, 0, H * D])
    g.output(g("ReduceSum", scores, [1], keepdims=0), "B", "S", "S")
    return finish(g, g("Add", h, linear(g, merged, "o", H * D, E)))


def onnx_attention_gqa() -> onnx.ModelProto:
    """Six query heads over two heads of keys and values, causal, soft-capped."""
    g = Builder("onnx_attention_gqa", 23)
    h = stem(g)
    q, k, v = projected(g, h, (6 * D, 2 * D, 2 * D))
    y = g("Attention", q, k, v, q_num_heads=6, kv_num_heads=2, is_causal=1, softcap=5.0)
    return finish(g, g("Add", h, linear(g, y, "o", 6 * D, E)))


def onnx_attention_cache() -> onnx.ModelProto:
    """Past keys and values come in, present ones go out."""
    g = Builder("onnx_attention_cache", 23)
    h = stem(g)
    past = [g.input(f"past_{name}", "B", 2, "P", D) for name in ("key", "value")]
    q, k, v = projected(g, h, (6 * D, 2 * D, 2 * D))
    y, *present = g("Attention", q, k, v, None, *past, n=3, q_num_heads=6, kv_num_heads=2)
    for present_name in present:
        g.output(present_name, "B", 2, None, D)
    return finish(g, g("Add", h, linear(g, y, "o", 6 * D, E)))


def tables(g: Builder, pairs: int, name: str = "") -> tuple[str, str]:
    """Cosines and sines of 64 positions."""
    angles = np.arange(64)[:, None] * (100.0 ** (-np.arange(pairs) / pairs))[None]
    return g.const(f"cos{name}", np.cos(angles), np.float32), g.const(f"sin{name}", np.sin(angles), np.float32)


def _positions(g: Builder, dtype: int = TensorProto.INT64) -> str:
    return g.input("positions", "B", "S", dtype=dtype)


def onnx_rotary() -> onnx.ModelProto:
    """RotaryEmbedding on three axes before Attention."""
    g = Builder("onnx_rotary", 23)
    h, at = stem(g), _positions(g)
    q, k, v = projected(g, h, (H * 8, H * 8, H * D))
    q, k = (g("RotaryEmbedding", x, *tables(g, 4, x), at, num_heads=H) for x in (q, k))
    y = g("Attention", q, k, v, q_num_heads=H, kv_num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def onnx_rotary_partial() -> onnx.ModelProto:
    """The first half of every head rotates, in neighbouring pairs, on four axes; RMSNormalization before."""
    g = Builder("onnx_rotary_partial", 23)
    h, at = stem(g), _positions(g)
    normed = g("RMSNormalization", h, g.weight("gamma", E, scale=1.0), axis=-1)
    q, k, v = projected(g, normed, (H * 8, H * 8, H * 8))
    q, k, v = (split_heads(g, x, H, 8) for x in (q, k, v))
    q, k = (g("RotaryEmbedding", x, *tables(g, 2, x), at, rotary_embedding_dim=4, interleaved=1) for x in (q, k))
    y = g("Reshape", g("Transpose", g("Attention", q, k, v), perm=[0, 2, 1, 3]), [0, 0, H * 8])
    return finish(g, g("Add", h, linear(g, y, "o", H * 8, E)))


# ---- com.microsoft ---------------------------------------------------------------------------------------------------


def attention() -> onnx.ModelProto:
    """One weight for Q, K and V, a mask of lengths."""
    g = contrib("attention")
    h = stem(g)
    mask = g.input("mask", "B", "S", dtype=TensorProto.INT32)
    operands = (g.weight("w_qkv", E, 3 * H * D), g.weight("b_qkv", 3 * H * D, scale=0.5), mask)
    y = microsoft(g, "Attention", h, *operands, num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def attention_bias() -> onnx.ModelProto:
    """V wider than Q and K, a bias a head, causal."""
    g = contrib("attention_bias")
    h = stem(g)
    width = 2 * H * D + H * 6
    bias = g("Mul", g.weight("table", 1, H, 1, 1, scale=1.0), g("Unsqueeze", g.input("far", "S", "S"), [0, 1]))
    operands = (g.weight("w_qkv", E, width), g.weight("b_qkv", width, scale=0.5), None, None, bias)
    y = microsoft(g, "Attention", h, *operands, num_heads=H, qkv_hidden_sizes=[H * D, H * D, H * 6], unidirectional=1)
    return finish(g, g("Add", h, linear(g, y, "o", H * 6, E)))


def multi_head() -> onnx.ModelProto:
    """Q, K and V apart, a bias for all three, V wider than Q and K."""
    g = contrib("multi_head")
    h = stem(g)
    mask = g.input("mask", "B", "S", dtype=TensorProto.INT32)
    q, k, v = projected(g, h, (H * D, H * D, H * 6), bias=False)
    y = microsoft(g, "MultiHeadAttention", q, k, v, g.weight("b_qkv", 2 * H * D + H * 6, scale=0.5), mask, num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", H * 6, E)))


def multi_head_packed() -> onnx.ModelProto:
    """Q, K and V in one operand `[B, S, h, 3, d]`."""
    g = contrib("multi_head_packed")
    h = stem(g)
    packed = g("Reshape", linear(g, h, "qkv", E, 3 * H * D), [0, 0, H, 3, D])
    y = microsoft(g, "MultiHeadAttention", packed, num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def multi_head_packed_kv() -> onnx.ModelProto:
    """K and V in one operand `[B, L, h, 2, d]` of another sequence."""
    g = contrib("multi_head_packed_kv")
    h = stem(g)
    memory = linear(g, g.input("memory", "B", "L", 7), "memory", 7, E)
    packed = g("Reshape", linear(g, memory, "kv", E, 2 * H * D), [0, 0, H, 2, D])
    y = microsoft(g, "MultiHeadAttention", linear(g, h, "q", E, H * D), packed, num_heads=H, scale=0.4)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def multi_head_cross() -> onnx.ModelProto:
    """K and V with heads apart, as a cross attention reads them from a cache; a bias a head on the scores."""
    g = contrib("multi_head_cross")
    h = stem(g)
    memory = linear(g, g.input("memory", "B", 9, 7), "memory", 7, E)
    k, v = (split_heads(g, linear(g, memory, name, E, H * D)) for name in "kv")
    bias = g("Mul", g.weight("table", 1, H, 1, 1, scale=1.0), g("Unsqueeze", g.input("far", "S", 9), [0, 1]))
    y = microsoft(g, "MultiHeadAttention", linear(g, h, "q", E, H * D), k, v, None, None, bias, num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def multi_head_cache() -> onnx.ModelProto:
    """Past keys and values come in, present ones go out."""
    g = contrib("multi_head_cache")
    h = stem(g)
    past = [g.input(f"past_{name}", "B", H, "P", D) for name in ("key", "value")]
    q, k, v = projected(g, h, (H * D,) * 3)
    y, *present = microsoft(g, "MultiHeadAttention", q, k, v, None, None, None, *past, n=3, num_heads=H)
    for present_name in present:
        g.output(present_name, "B", H, None, D)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def attention_cache() -> onnx.ModelProto:
    """One weight for Q, K and V, past and present in one tensor: one head size."""
    g = contrib("attention_cache")
    h = stem(g)
    operands = (g.weight("w_qkv", E, 3 * H * D), g.weight("b_qkv", 3 * H * D, scale=0.5), None)
    past = g.input("past", 2, "B", H, "P", D)
    y, present = microsoft(g, "Attention", h, *operands, past, n=2, num_heads=H, unidirectional=1)
    g.output(present, 2, "B", H, None, D)
    return finish(g, g("Add", h, linear(g, y, "o", H * D, E)))


def microsoft_rotary() -> onnx.ModelProto:
    """RotaryEmbedding with half of every head turning, before MultiHeadAttention."""
    g = contrib("microsoft_rotary")
    h, at = stem(g), _positions(g)
    q, k, v = projected(g, h, (H * 8, H * 8, H * D))
    rotary = {"num_heads": H, "rotary_embedding_dim": 4}
    q, k = (microsoft(g, "RotaryEmbedding", x, at, *tables(g, 2, x), **rotary) for x in (q, k))
    return finish(g, g("Add", h, linear(g, microsoft(g, "MultiHeadAttention", q, k, v, num_heads=H), "o", H * D, E)))


def _grouped(name: str, width: int, *, rotary: bool, packed: bool) -> onnx.ModelProto:
    g = contrib(name)
    h = stem(g)
    lengths = g.input("lengths", "B", dtype=TensorProto.INT32)
    total = g("Cast", g("Gather", g("Shape", h), np.array(1), axis=0), to=TensorProto.INT32)
    # Every sequence is as long as the longest one; the input only keeps the batch.
    last = g("Sub", g("Add", g("Mul", lengths, np.array(0, np.int32)), total), np.array(1, np.int32))
    widths = (6 * width, 2 * width, 2 * width)
    qkv = [linear(g, h, "qkv", E, sum(widths)), None, None] if packed else projected(g, h, widths)
    turning = tables(g, width // 2) if rotary else ()
    attributes = {"num_heads": 6, "kv_num_heads": 2, "do_rotary": int(rotary)}
    y, _, _ = microsoft(g, "GroupQueryAttention", *qkv, None, None, last, total, *turning, n=3, **attributes)
    return finish(g, g("Add", h, linear(g, y, "o", 6 * width, E)))


def group_query() -> onnx.ModelProto:
    """Six query heads over two heads of keys and values, no rotation: head sizes in steps of 8."""
    return _grouped("group_query", 16, rotary=False, packed=False)


def group_query_rotary() -> onnx.ModelProto:
    """Rotation inside: steps of 8 pairs."""
    return _grouped("group_query_rotary", 32, rotary=True, packed=False)


def group_query_packed() -> onnx.ModelProto:
    """Q, K and V in one operand `g·r·d + g·d + g·d`."""
    return _grouped("group_query_packed", 16, rotary=True, packed=True)


# ---- norms, contractions, mixtures -----------------------------------------------------------------------------------


def skip_layer_norm() -> onnx.ModelProto:
    """`norm(h + ffn(h) + bias)` with the sum read as well, then a root-mean-square one."""
    g = contrib("skip_layer_norm")
    h = stem(g)
    y = linear(
        g, microsoft(g, "FastGelu", linear(g, h, "up", E, F, bias=False), g.weight("b_up", F, scale=0.5)), "down", F, E
    )
    parameters = [g.const(f"gamma{k}", g.rng.uniform(0.5, 2, E), np.float32) for k in range(2)]
    parameters.insert(1, g.weight("beta", E, scale=0.5))
    normed, *_, total = microsoft(
        g, "SkipLayerNormalization", h, y, *parameters[:2], g.weight("bias", E, scale=0.5), n=4, epsilon=1e-5
    )
    z = microsoft(
        g, "SkipSimplifiedLayerNormalization", linear(g, normed, "mid", E, E), total, parameters[2], epsilon=1e-5
    )
    return finish(g, z)


def embed_layer_norm() -> onnx.ModelProto:
    """Words, positions and segments, looked up and normalized at once."""
    g = contrib("embed_layer_norm")
    ids, segments = (g.input(name, "B", "S", dtype=TensorProto.INT32) for name in ("ids", "segments"))
    tables_ = [g.weight(name, rows, E, scale=1.0) for name, rows in (("words", 20), ("places", 40), ("kinds", 2))]
    gamma = g.const("gamma", g.rng.uniform(0.5, 2, E), np.float32)
    h, _ = microsoft(g, "EmbedLayerNormalization", ids, segments, *tables_, gamma, g.weight("beta", E, scale=0.5), n=2)
    y = linear(g, g("Relu", linear(g, h, "up", E, F)), "down", F, E)
    return finish(g, g("Add", h, y))


def fused_matmul() -> onnx.ModelProto:
    """Scores as FusedMatMul with K transposed, FFN as BiasGelu and FusedGemm-like products."""
    g = contrib("fused_matmul")
    h = stem(g)
    q, k, v = (split_heads(g, x) for x in projected(g, h, (H * D,) * 3))
    scores = microsoft(g, "FusedMatMul", q, k, transB=1, alpha=0.5)
    mixed = g("Transpose", g("MatMul", g("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    h = g("Add", h, linear(g, g("Reshape", mixed, [0, 0, H * D]), "o", H * D, E))
    up = microsoft(g, "FusedMatMul", h, g.weight("w_up", F, E), transB=1)
    y = linear(g, microsoft(g, "BiasGelu", up, g.weight("b_up", F, scale=0.5)), "down", F, E)
    return finish(g, g("Add", h, y))


def fused_conv() -> onnx.ModelProto:
    """Conv + Relu, then Conv + summand + Relu."""
    g = contrib("fused_conv")
    x = g.input("x", "B", 3, 8, 8)

    def fused(x: str, name: str, inputs: int, outputs: int, *more: str) -> str:
        operands = (g.weight(f"w_{name}", outputs, inputs, 3, 3), g.weight(f"b_{name}", outputs, scale=0.5), *more)
        return microsoft(g, "FusedConv", x, *operands, activation="Relu", pads=[1] * 4, kernel_shape=[3, 3])

    h = fused(x, "in", 3, E)
    h = fused(fused(h, "up", E, F), "down", F, E, h)
    g.output(g("Conv", h, g.weight("w_out", 5, E, 1, 1)), "B", 5, 8, 8)
    return g.model()


def mixture() -> onnx.ModelProto:
    """Two of four experts for every token."""
    g = contrib("mixture")
    h = stem(g)
    router = linear(g, g("Reshape", h, [-1, E]), "router", E, 4)
    up = (g.weight("w_up", 4, F, E), g.weight("b_up", 4, F, scale=0.5))
    down = (g.weight("w_down", 4, E, F), g.weight("b_down", 4, E, scale=0.5))
    y = microsoft(g, "MoE", h, router, *up, *down, k=2, activation_type="relu", normalize_routing_weights=1)
    return finish(g, g("Add", h, y))


def gated_mixture() -> onnx.ModelProto:
    """SwiGLU inside: value and gate interleaved in one weight."""
    g = contrib("gated_mixture")
    h = stem(g)
    router = linear(g, g("Reshape", h, [-1, E]), "router", E, 4)
    up = (g.weight("w_up", 4, 2 * F, E), g.weight("b_up", 4, 2 * F, scale=0.5))
    down = (g.weight("w_down", 4, E, F), g.weight("b_down", 4, E, scale=0.5))
    y = microsoft(
        g, "MoE", h, router, *up, *down, k=2, activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1
    )
    return finish(g, g("Add", h, y))


def embed_layer_norm_masked() -> onnx.ModelProto:
    """Positions given, no segments, and a mask counted into lengths for the attention that follows."""
    g = contrib("embed_layer_norm_masked")
    ids, mask, at = (g.input(name, "B", "S", dtype=TensorProto.INT32) for name in ("ids", "mask", "positions"))
    words, places = g.weight("words", 20, E, scale=1.0), g.weight("places", 40, E, scale=1.0)
    gamma, beta = g.const("gamma", g.rng.uniform(0.5, 2, E), np.float32), g.weight("beta", E, scale=0.5)
    tables_ = (None, words, places, None, gamma, beta, mask, at)
    h, lengths, total = microsoft(g, "EmbedLayerNormalization", ids, *tables_, n=3)
    operands = (g.weight("w_qkv", E, 3 * H * D), g.weight("b_qkv", 3 * H * D, scale=0.5), lengths)
    y = microsoft(g, "Attention", h, *operands, num_heads=H)
    return finish(g, g("Add", total, linear(g, y, "o", H * D, E)))


def fused_gemm() -> onnx.ModelProto:
    """Gemm with an activation function, then scores with the first operand transposed and a softmax of a sum."""
    g = contrib("fused_gemm")
    x = g.input("x", 9, 7)
    h = g("Gemm", x, g.weight("w_in", 7, E), g.weight("b_in", E, scale=0.5))
    y = microsoft(
        g, "FusedGemm", h, g.weight("w_up", F, E), g.weight("b_up", F, scale=0.5), transB=1, activation="Relu"
    )
    y = g("Gemm", y, g.weight("w_down", F, E), g.weight("b_down", E, scale=0.5))
    q, k = linear(g, h, "q", E, H * D), linear(g, h, "k", E, H * D)
    scores = microsoft(g, "FusedMatMul", g("Transpose", q, perm=[1, 0]), g("Transpose", k, perm=[1, 0]), transA=1)
    scores = g("Softmax", g("Add", scores, g.weight("bias", 9, 9, scale=1.0)))
    h = g("Add", g("Add", h, y), g("MatMul", scores, h))
    g.output(linear(g, h, "out", E, 5), 9, 5)
    return g.model()


def group_query_cache() -> onnx.ModelProto:
    """A cache of keys and values, a bias on the scores, a sink a head."""
    g = contrib("group_query_cache")
    h = linear(g, g.input("x", 2, 1, 7), "in", 7, E)
    qkv = projected(g, h, (6 * 16, 2 * 16, 2 * 16))
    past = [g.input(f"past_{name}", 2, 2, 4, 16) for name in ("key", "value")]
    lengths, total = g.const("lengths", np.full(2, 4), np.int32), g.const("total", 5, np.int32)
    bias = g("Mul", g.weight("table", 1, 6, 1, 1, scale=1.0), g.input("far", 2, 1, 1, 5))
    operands = (*qkv, *past, lengths, total, None, None, None, bias, g.weight("sink", 6, scale=1.0))
    y, *present = microsoft(g, "GroupQueryAttention", *operands, n=3, num_heads=6, kv_num_heads=2)
    for present_name in present:
        g.output(present_name, 2, 2, 5, 16)
    g.output(linear(g, g("Add", h, linear(g, y, "o", 6 * 16, E)), "out", E, 5), 2, 1, 5)
    return g.model()


# ---- what the CPU provider has no kernel for -------------------------------------------------------------------------


def diffusion_block() -> onnx.ModelProto:
    """NhwcConv, GroupNorm, SkipGroupNorm, BiasSplitGelu, BiasAdd, as ONNX Runtime writes them for CUDA."""
    g = contrib("diffusion_block")

    def conv(x: str, name: str, inputs: int, outputs: int) -> str:
        operands = (x, g.weight(f"w_{name}", outputs, 3, 3, inputs), g.weight(f"b_{name}", outputs, scale=0.5))
        return microsoft(g, "NhwcConv", *operands, pads=[1] * 4, kernel_shape=[3, 3])

    def norm(op: str, x: str, name: str, width: int, *more: str, n: int = 1) -> Any:
        parameters = (g.weight(f"gamma_{name}", width, scale=1.0), g.weight(f"beta_{name}", width, scale=1.0))
        return microsoft(g, op, x, *parameters, *more, groups=4, activation=1, n=n)

    h = conv(g.input("x", 2, 8, 8, 3), "in", 3, 16)
    y = conv(norm("GroupNorm", h, "one", 16), "up", 16, 24)
    h = norm("SkipGroupNorm", h, "two", 16, conv(y, "down", 24, 16))
    tokens = g("Reshape", h, [2, 64, 16])
    y = g("MatMul", tokens, g.weight("w_wide", 16, 2 * F))
    y = g("MatMul", microsoft(g, "BiasSplitGelu", y, g.weight("b_wide", 2 * F, scale=0.5)), g.weight("w_narrow", F, 16))
    y = microsoft(g, "BiasAdd", y, g.weight("b_narrow", 16, scale=0.5), tokens)
    y = microsoft(g, "GemmFastGelu", y, g.weight("w_mid", 16, E), g.weight("b_mid", E, scale=0.5))
    g.output(linear(g, y, "out", E, 5), 2, 64, 5)
    return g.model()
