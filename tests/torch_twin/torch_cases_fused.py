"""Attention and what ONNX Runtime fuses (com.microsoft), in every spelling of masks, caches and layouts."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.analysis.rule_cases import BYTE, FLOAT, INT, Case, arg, case, ints

X = arg(3, 5, 4)
IMAGE = arg(2, 6, 8, 9)


_Q, _KV = arg(2, 5, 24), arg(2, 7, 16)
_HEADS = {"q_num_heads": 6, "kv_num_heads": 2}
_CACHE = (arg(2, 2, 3, 4), arg(2, 2, 3, 8))

ATTENTION = [
    case("Attention", "grouped", _Q, arg(2, 7, 8), _KV, **_HEADS, opset=23),
    case("Attention", "causal", _Q, arg(2, 5, 8), arg(2, 5, 16), **_HEADS, is_causal=1, opset=23),
    case("Attention", "a mask", _Q, arg(2, 7, 8), _KV, arg(5, 7), **_HEADS, opset=23),
    case("Attention", "a mask of a head", _Q, arg(2, 7, 8), _KV, arg(2, 6, 5, 7), **_HEADS, scale=0.3, opset=23),
    case("Attention", "a mask of truths", _Q, arg(2, 7, 8), _KV, np.tri(5, 7, 2, dtype=bool), **_HEADS, opset=23),
    case("Attention", "nothing to see", _Q, arg(2, 7, 8), _KV, np.tri(5, 7, -2, dtype=bool), **_HEADS, opset=24),
    case("Attention", "capped", _Q, arg(2, 7, 8), _KV, arg(5, 7), **_HEADS, softcap=0.5, opset=24),
    case(
        "Attention",
        "a cache",
        *(_Q, arg(2, 7, 8), _KV, None, *_CACHE),
        **_HEADS,
        is_causal=1,
        outputs=(FLOAT,) * 3,
        opset=23,
    ),
    case("Attention", "four axes", arg(2, 6, 5, 4), arg(2, 6, 7, 4), arg(2, 6, 7, 8), opset=23),
    *(
        case(
            "Attention",
            f"scores {mode}",
            *(_Q, arg(2, 5, 8), arg(2, 5, 16), arg(5, 5)),
            **_HEADS,
            softcap=0.5,
            qk_matmul_output_mode=mode,
            outputs=(FLOAT,) * 4,
            opset=24,
        )
        for mode in range(4)
    ),
    case(
        "Attention",
        "lengths",
        *(arg(2, 5, 24), arg(2, 7, 8), _KV, None, None, None, ints(7, 6)),
        **_HEADS,
        is_causal=1,
        opset=24,
    ),
    *(
        case(
            "RotaryEmbedding",
            f"{x.shape} {turn}",
            *(x, arg(9, pairs), arg(9, pairs), arg(2, 5, dtype=INT, low=0, high=9)),
            interleaved=turn,
            opset=23,
            **more,
        )
        for turn in (0, 1)
        for x, pairs, more in (
            (arg(2, 5, 24), 4, {"num_heads": 3}),
            (arg(2, 3, 5, 8), 4, {}),
            (arg(2, 3, 5, 8), 2, {"rotary_embedding_dim": 4}),
        )
    ),
    case("RotaryEmbedding", "tables of every token", arg(2, 3, 5, 8), arg(2, 5, 4), arg(2, 5, 4), opset=23),
    *(
        case("TensorScatter", mode, arg(2, 3, 6, 4), arg(2, 3, 2, 4), ints(1, start), mode=mode, opset=24)
        for mode, start in (("linear", 4), ("circular", 5))
    ),
]


def fused(op: str, text: str, *operands: object, **settings: object) -> Case:
    """An op of com.microsoft."""
    return case(f"com.microsoft::{op}", text, *operands, **settings)


def _int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


_WHOLE = (arg(2, 5, 7), arg(7, 30), arg(30))
_SEEN = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], np.int32)
_MASKS = {
    "lengths": _int32(5, 3),
    "ends and starts": _int32(5, 4, 2, 0),
    "keys": _SEEN,
    "queries and keys": np.tri(5, 5, 1, dtype=np.int32)[None] * _SEEN[:, None],
}
_QKV = (arg(2, 5, 12), arg(2, 7, 12), arg(2, 7, 18))
_GROUPED = (arg(2, 5, 32), arg(2, 5, 16), arg(2, 5, 16))
_TURNED = (arg(2, 1, 64), arg(2, 1, 32), arg(2, 1, 32), arg(2, 2, 6, 16), arg(2, 2, 6, 16))
_TABLES = (arg(16, 4), arg(16, 4))
_G = {"num_heads": 4, "kv_num_heads": 2, "outputs": (FLOAT,) * 3}

FUSED = [
    *(fused("Attention", text, *_WHOLE, mask, num_heads=2) for text, mask in _MASKS.items()),
    fused("Attention", "causal, hidden keys", *_WHOLE, _SEEN, num_heads=2, unidirectional=1),
    fused("Attention", "a bias, a scale", *_WHOLE, None, None, arg(1, 2, 5, 5), num_heads=2, scale=0.3),
    fused("Attention", "another mask", *_WHOLE, _SEEN, num_heads=2, mask_filter_value=-3.0),
    fused(
        "Attention",
        "a cache",
        *(*_WHOLE, None, arg(2, 2, 2, 3, 5)),
        num_heads=2,
        unidirectional=1,
        outputs=(FLOAT, FLOAT),
    ),
    fused("Attention", "widths", *(arg(2, 5, 7), arg(7, 32), arg(32)), num_heads=4, qkv_hidden_sizes=[8, 8, 16]),
    fused("MultiHeadAttention", "no bias", *_QKV, num_heads=3),
    fused("MultiHeadAttention", "hidden keys", *_QKV, arg(42), np.tri(2, 7, 3, dtype=np.int32), num_heads=3),
    fused("MultiHeadAttention", "a bias", *_QKV, None, None, arg(2, 3, 5, 7), num_heads=3, scale=0.4),
    fused("MultiHeadAttention", "causal", *[arg(2, 5, 12)] * 3, num_heads=3, unidirectional=1),
    fused("MultiHeadAttention", "heads first", arg(2, 5, 12), *[arg(2, 3, 7, 4)] * 2, num_heads=3),
    fused(
        "MultiHeadAttention",
        "a cache, scores",
        *([arg(2, 5, 12)] * 3),
        *(arg(36), None, None, arg(2, 3, 4, 4), arg(2, 3, 4, 4)),
        num_heads=3,
        outputs=(FLOAT,) * 4,
    ),
    fused("GroupQueryAttention", "a prompt", *_GROUPED, None, None, _int32(4, 4), _int32(5), **_G),
    fused("GroupQueryAttention", "capped", *_GROUPED, None, None, _int32(4, 4), _int32(5), **_G, softcap=0.7),
    fused(
        "GroupQueryAttention",
        "a window",
        *(*_GROUPED, None, None, _int32(4, 4), _int32(5)),
        **_G,
        local_window_size=2,
    ),
    fused("GroupQueryAttention", "smooth", *_GROUPED, None, None, _int32(4, 4), _int32(5), **_G, smooth_softmax=1),
    fused(
        "GroupQueryAttention",
        "a sink",
        *(*_GROUPED, None, None, _int32(4, 4), _int32(5), None, None, None, None, arg(4)),
        **_G,
    ),
    *(
        fused(
            "GroupQueryAttention",
            f"turned {pairs}, one token each",
            *(*_TURNED, _int32(6, 6), _int32(7), arg(16, 8), arg(16, 8)),
            **_G,
            do_rotary=1,
            rotary_interleaved=pairs,
        )
        for pairs in (0, 1)
    ),
    *(
        fused("GroupQueryAttention", text, *operands, **_G, **more, do_rotary=1)
        for text, operands, more in (
            (
                "more tokens, a window",
                (
                    *(arg(1, 3, 64), arg(1, 3, 32), arg(1, 3, 32), arg(1, 2, 6, 16), arg(1, 2, 6, 16)),
                    *(_int32(8), _int32(9), arg(16, 8), arg(16, 8)),
                ),
                {"local_window_size": 4},
            ),
            (
                "a prompt from a position on",
                (
                    *(arg(2, 5, 64), arg(2, 5, 32), arg(2, 5, 32), None, None, _int32(4, 2), _int32(5)),
                    *(arg(16, 8), arg(16, 8), ints(*range(3, 13)).reshape(2, 5)),
                ),
                {},
            ),
        )
    ),
    fused("GroupQueryAttention", "both ways", *_GROUPED, None, None, _int32(4, 4), _int32(5), **_G, causal=0),
    fused(
        "GroupQueryAttention",
        "a bias",
        *(*_GROUPED, None, None, _int32(4, 4), _int32(5), None, None, None, arg(1, 4, 5, 5)),
        **_G,
        scale=0.2,
    ),
    *(
        fused("RotaryEmbedding", f"{at.shape} {pairs}", x, at, *_TABLES, interleaved=pairs)
        for pairs in (0, 1)
        for x in (arg(2, 5, 24), arg(2, 3, 5, 8))
        for at in (ints(3), ints(*range(10)).reshape(2, 5))
    ),
    fused(
        "RotaryEmbedding",
        "in part",
        *(arg(2, 5, 24), ints(2), arg(16, 2), arg(16, 2)),
        num_heads=3,
        rotary_embedding_dim=4,
    ),
    *(
        fused("SkipLayerNormalization", text, X, skip, arg(4), arg(4), arg(4), epsilon=1e-3)
        for text, skip in (("skip", X), ("one for all", arg(5, 4)))
    ),
    fused("SkipSimplifiedLayerNormalization", "bias", X, X, arg(4), arg(4), epsilon=1e-3),
    *(
        fused("FusedMatMul", f"{a.shape} {flags}", a, b, alpha=0.3, **flags)
        for a, b, flags in (
            (arg(2, 4, 3), arg(2, 4, 5), {"transA": 1}),
            (arg(2, 3, 4), arg(5, 4), {"transB": 1}),
            (arg(3, 2, 4), arg(2, 4, 5), {"transBatchA": 1}),
            (arg(4, 2, 3), arg(4, 2, 5), {"transBatchA": 1, "transA": 1, "transBatchB": 1}),
            (arg(4), arg(4, 5), {}),
        )
    ),
    *(
        fused("FusedConv", name, IMAGE, arg(10, 6, 3, 3), arg(10), arg(2, 10, 6, 7), activation=name, **numbers)
        for name, numbers in (
            ("Relu", {}),
            ("LeakyRelu", {"activation_params": [0.2]}),
            ("Clip", {"activation_params": [-0.4, 0.3]}),
            ("HardSigmoid", {"activation_params": [0.3, 0.4]}),
        )
    ),
    fused("FusedGemm", "Relu", arg(3, 4), arg(5, 4), arg(5), transB=1, alpha=0.5, beta=2.0, activation="Relu"),
    fused("BiasGelu", "bias", X, arg(4)),
    fused("FastGelu", "bias", X, arg(4)),
    fused("FastGelu", "none", X),
    fused("QuickGelu", "alpha", X, alpha=0.9),
    fused(
        "EmbedLayerNormalization",
        "positions, a mask",
        *(np.arange(10, dtype=np.int32).reshape(2, 5), np.ones((2, 5), np.int32)),
        *(arg(12, 8), arg(9, 8), arg(2, 8), arg(8), arg(8)),
        np.tri(2, 5, 2, dtype=np.int32),
        np.array([[4, 3, 2, 1, 0]], np.int32),
        outputs=(FLOAT, TensorProto.INT32, FLOAT),
        epsilon=1e-5,
    ),
    *(
        fused(
            "MatMulNBits",
            f"{bits} bits, {text}",
            *(arg(3, 40), arg(6, 3, 16 * bits // 8, dtype=BYTE, high=255), arg(6, 3), points, None, arg(6)),
            K=40,
            N=6,
            bits=bits,
            block_size=16,
        )
        for bits, text, points in (
            (2, "no zero points", None),
            (4, "zero points", arg(6, 2, dtype=BYTE, high=255)),
            (4, "zero points of floats", arg(6, 3)),
            (8, "zero points", arg(6, 3, dtype=BYTE, high=255)),
        )
    ),
    fused(
        "MoE",
        "gated",
        *(arg(6, 8), arg(6, 4), arg(4, 20, 8), arg(4, 20), arg(4, 8, 10), arg(4, 8)),
        activation_alpha=1.7,
        activation_beta=1.0,
        activation_type="swiglu",
        k=2,
        normalize_routing_weights=1,
        swiglu_fusion=1,
        swiglu_limit=0.5,
    ),
    *(
        fused(
            "MoE",
            f"{name} {even}",
            *(arg(6, 8), arg(6, 4), arg(4, 10, 8), arg(4, 10), arg(4, 8, 10), arg(4, 8)),
            activation_type=name,
            k=2,
            normalize_routing_weights=even,
        )
        for name in ("relu", "gelu", "silu", "identity")
        for even in (0, 1)
    ),
]
