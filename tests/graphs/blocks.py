"""Small blocks of whole architectures: what comes together in them, and structures that images and tokens share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.graphs.attention import D, E, H, attend, finish, heads, merge, separate, stem
from tests.graphs.builder import Builder, layer_norm, linear
from tests.graphs.vision import image

F = 14


def shared_layers() -> onnx.ModelProto:
    """ALBERT: two layers of the same weights."""
    g = Builder("shared_layers")
    h = stem(g)
    for _ in range(2):
        h = separate(g, h)
        h = g("Add", h, linear(g, g("Relu", linear(g, h, "up", E, F)), "down", F, E))
    return finish(g, h)


def transformer_block() -> onnx.ModelProto:
    """Pre-norm attention and FFN with erf-Gelu, two layers."""
    g = Builder("transformer_block")
    h = stem(g)
    for layer in "01":
        normed = layer_norm(g, h, f"norm{layer}", E)
        q, k, v = (heads(g, linear(g, normed, f"{part}{layer}", E, H * D)) for part in "qkv")
        h = g("Add", h, merge(g, attend(g, q, k, v), f"o{layer}"))
        up = linear(g, layer_norm(g, h, f"norm{layer}f", E), f"up{layer}", E, F)
        gelu = g("Mul", g("Mul", up, g("Add", g("Erf", g("Div", up, 1.4142135)), 1.0)), 0.5)
        h = g("Add", h, linear(g, gelu, f"down{layer}", F, E))
    return finish(g, h)


def vit() -> onnx.ModelProto:
    """Patches, cls_token, pos_embed, layer scale; the class token alone is read."""
    g = Builder("vit", opset=20)
    w = g.weight("w_patch", 10, 3, 4, 4)
    h = g("Conv", g.input("x", "B", 3, 8, 8), w, g.weight("b_patch", 10), strides=[4, 4], kernel_shape=[4, 4])
    h = g("Transpose", g("Reshape", h, [0, 10, 4]), perm=[0, 2, 1])
    batch = g("Shape", "x", start=0, end=1)
    token = g("Expand", g.weight("cls_token", 1, 1, 10), g("Concat", batch, np.array([1, 10]), axis=0))
    h = g("Add", g("Concat", token, h, axis=1), g.weight("pos_embed", 1, 5, 10))
    y = linear(g, g("Gelu", linear(g, h, "up", 10, 14)), "down", 14, 10)
    h = g("Add", h, g("Mul", y, g.weight("layer_scale", 10, scale=1.0)))
    y = linear(g, g("Gather", layer_norm(g, h, "norm", 10), np.array(0), axis=1), "fc", 10, 5)
    g.output(y, "B", 5)
    return g.model()


def mixer() -> onnx.ModelProto:
    """Token mixing: the hidden width of the token MLP stands where the channels stood; static number of patches."""
    g = Builder("mixer")
    h = linear(g, g.input("x", "B", 9, 7), "in", 7, 10)
    t = g("Transpose", layer_norm(g, h, "norm0", 10), perm=[0, 2, 1])
    t = linear(g, g("Relu", linear(g, t, "token_up", 9, 6)), "token_down", 6, 9)
    h = g("Add", h, g("Transpose", t, perm=[0, 2, 1]))
    c = g("Relu", linear(g, layer_norm(g, h, "norm1", 10), "up", 10, 14))
    h = g("Add", h, linear(g, c, "down", 14, 10))
    y = linear(g, g("ReduceMean", h, axes=[1], keepdims=0), "fc", 10, 5)
    g.output(y, "B", 5)
    return g.model()


def window_attention() -> onnx.ModelProto:
    """Swin: cyclic shift, windows cut out, fused qkv with bias table, windows put back."""
    g = Builder("window_attention")
    h = g("Transpose", image(g, 10), perm=[0, 2, 3, 1])

    def roll(x: str, by: int) -> str:
        for axis in (1, 2):
            tail, head = (g("Slice", x, [a], [b], [axis]) for a, b in ((by, 2**63 - 1), (0, by)))
            x = g("Concat", tail, head, axis=axis)
        return x

    def windows(x: str, inner: list[int], outer: list[int]) -> str:
        return g("Reshape", g("Transpose", g("Reshape", x, inner), perm=[0, 1, 3, 2, 4, 5]), outer)

    x = windows(roll(h, 2), [-1, 2, 4, 2, 4, 10], [-1, 16, 10])
    qkv = g("Reshape", linear(g, x, "qkv", 10, 36), [-1, 16, 3, 3, 4])
    q, k, v = (g("Gather", g("Transpose", qkv, perm=[2, 0, 3, 1, 4]), np.array(part), axis=0) for part in range(3))
    scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    bias = g("Gather", g.weight("table", 49, 3, scale=2.0), g.const("where", g.rng.integers(0, 49, 256)), axis=0)
    bias = g("Transpose", g("Reshape", bias, [16, 16, 3]), perm=[2, 0, 1])
    scores = g("Softmax", g("Add", scores, g("Unsqueeze", bias, [0])), axis=-1)
    y = g("Reshape", g("Transpose", g("MatMul", scores, v), perm=[0, 2, 1, 3]), [-1, 16, 12])
    y = windows(linear(g, y, "o", 12, 10), [-1, 2, 2, 4, 4, 10], [-1, 8, 8, 10])
    h = g("Add", h, roll(y, 6))
    y = linear(g, g("ReduceMean", h, axes=[1, 2], keepdims=0), "fc", 10, 5)
    g.output(y, "B", 5)
    return g.model()


def channel_attention() -> onnx.ModelProto:
    """XCiT: queries and keys of channels are summed over positions, so that the softmax runs over them."""
    g = Builder("channel_attention")
    h = linear(g, g.input("x", "B", "S", 7), "in", 7, 10)
    q, k, v = (
        g("Transpose", g("Reshape", linear(g, h, part, 10, 12), [0, 0, 3, 4]), perm=[0, 2, 3, 1]) for part in "qkv"
    )
    q, k = (g("Div", part, g("ReduceL2", part, axes=[-1])) for part in (q, k))
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    y = g("Reshape", g("Transpose", g("MatMul", scores, v), perm=[0, 3, 1, 2]), [0, 0, 12])
    y = linear(g, g("Add", h, linear(g, y, "o", 12, 10)), "out", 10, 5)
    g.output(y, "B", "S", 5)
    return g.model()


BLOCKS: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(shared_layers, transformer_block, vit, mixer, window_attention, channel_attention),
)
