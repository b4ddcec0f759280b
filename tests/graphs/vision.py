"""Small convolutional graphs and what else images bring: concatenations, groups, shuffles, merging, resizing.

Channels are distinct everywhere; images are 8x8 with 3 channels unless said.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.graphs.builder import Builder, conv, layer_norm, linear


def image(g: Builder, channels: int = 12) -> str:
    """An image and the first convolution."""
    return g("Relu", conv(g, g.input("x", "B", 3, 8, 8), "in", 3, channels))


def classify(g: Builder, x: str, channels: int) -> onnx.ModelProto:
    """Global average, flatten, linear to 5 classes."""
    y = linear(g, g("Flatten", g("GlobalAveragePool", x)), "fc", channels, 5)
    g.output(y, "B", 5)
    return g.model()


def residual_bn() -> onnx.ModelProto:
    """Conv-BatchNorm-ReLU with a residual, and a max pool."""
    g = Builder("residual_bn")
    h = image(g)
    y = conv(g, h, "a", 12, 10)
    names = [g.weight(f"bn_{part}", 10, scale=0.5) for part in ("scale", "bias", "mean")]
    y = g("BatchNormalization", y, *names, g.const("bn_var", g.rng.uniform(0.5, 2, 10), np.float32))
    h = g("Add", h, conv(g, g("Relu", y), "b", 10, 12))
    return classify(g, g("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2]), 12)


def cat_twice() -> onnx.ModelProto:
    """cat([x, x]) before a convolution."""
    g = Builder("cat_twice")
    h = image(g, 6)
    return classify(g, conv(g, g("Concat", h, h, axis=1), "a", 12, 10), 10)


def c2f() -> onnx.ModelProto:
    """YOLO's C2f: split in two, a residual block on one half, concatenation of all three."""
    g = Builder("c2f")
    a, b = g("Split", conv(g, image(g, 12), "split", 12, 16, 1), axis=1, n=2)
    inner = g("Relu", conv(g, b, "m1", 8, 5))
    c = g("Add", b, conv(g, inner, "m2", 5, 8))
    return classify(g, conv(g, g("Concat", a, b, c, axis=1), "out", 24, 10, 1), 10)


def unet() -> onnx.ModelProto:
    """A skip that is concatenated after up-sampling by scales."""
    g = Builder("unet")
    skip = image(g, 12)
    down = g("Relu", conv(g, skip, "down", 12, 10, strides=[2, 2]))
    up = g("Resize", down, None, np.array([1, 1, 2, 2], np.float32), mode="nearest")
    return classify(g, g("Relu", conv(g, g("Concat", skip, up, axis=1), "up", 22, 9)), 9)


def resize_sizes() -> onnx.ModelProto:
    """Resize to constant sizes, the channel count among them."""
    g = Builder("resize_sizes")
    h = image(g, 12)
    batch = g("Shape", h, start=0, end=1)
    wide = g("Resize", h, None, None, g("Concat", batch, np.array([12, 16, 16]), axis=0), mode="linear")
    return classify(g, g("Relu", conv(g, wide, "a", 12, 10)), 10)


def conv_flatten_gemm() -> onnx.ModelProto:
    """The channels are the slow factor of the Gemm's 12·64 rows."""
    g = Builder("conv_flatten_gemm")
    flat = g("Reshape", image(g, 12), [-1, 768])
    y = g("Relu", g("Gemm", flat, g.weight("w_a", 10, 768), g.weight("b_a", 10), transB=1))
    g.output(linear(g, y, "fc", 10, 5), "B", 5)
    return g.model()


def gemm_reshape_transposed() -> onnx.ModelProto:
    """A generator: Gemm, Reshape to an image, ConvTranspose."""
    g = Builder("gemm_reshape_transposed")
    y = g("Gemm", g.input("x", "B", 7), g.weight("w_in", 7, 12 * 16), g.weight("b_in", 192))
    h = g("Relu", g("Reshape", y, [-1, 12, 4, 4]))
    up = {"kernel_shape": [2, 2], "strides": [2, 2]}
    h = g("Relu", g("ConvTranspose", h, g.weight("w_a", 12, 10, 2, 2), g.weight("b_a", 10), **up))
    y = g("ConvTranspose", h, g.weight("w_b", 10, 3, 2, 2), g.weight("b_b", 3), **up)
    g.output(y, "B", 3, 16, 16)
    return g.model()


def transposed_grouped() -> onnx.ModelProto:
    g = Builder("transposed_grouped")
    w = g.weight("w_a", 12, 3, 2, 2)
    h = g("ConvTranspose", image(g, 12), w, group=4, kernel_shape=[2, 2], strides=[2, 2])
    return classify(g, conv(g, g("Relu", h), "b", 12, 10, 1), 10)


def patch_merging() -> onnx.ModelProto:
    """Swin: four strided slices of the image concatenated along the channels, norm, linear."""
    g = Builder("patch_merging")
    h = g("Transpose", image(g, 12), perm=[0, 2, 3, 1])
    parts = [g("Slice", h, list(at), [8, 8], [1, 2], [2, 2]) for at in ((0, 0), (1, 0), (0, 1), (1, 1))]
    y = linear(g, layer_norm(g, g("Concat", *parts, axis=-1), "norm", 48), "a", 48, 10, bias=False)
    y = g("ReduceMean", g("Reshape", y, [0, 16, 10]), axes=[1], keepdims=0)
    g.output(linear(g, y, "fc", 10, 5), "B", 5)
    return g.model()


def pixel_shuffle() -> onnx.ModelProto:
    """DepthToSpace, and the same as Reshape-Transpose-Reshape."""
    g = Builder("pixel_shuffle")
    h = g("DepthToSpace", conv(g, image(g, 12), "a", 12, 40), blocksize=2, mode="CRD")
    y = g("Reshape", conv(g, g("Relu", h), "b", 10, 36), [0, 9, 2, 2, 16, 16])
    y = g("Reshape", g("Transpose", y, perm=[0, 1, 4, 2, 5, 3]), [0, 9, 32, 32])
    return classify(g, g("Relu", conv(g, y, "c", 9, 11)), 11)


def space_to_depth() -> onnx.ModelProto:
    g = Builder("space_to_depth")
    return classify(g, conv(g, g("SpaceToDepth", image(g, 6), blocksize=2), "a", 24, 10), 10)


def _shuffle(name: str, groups: int) -> onnx.ModelProto:
    """Grouped 1x1, channels shuffled across the groups, depthwise, grouped 1x1."""
    g = Builder(name)
    h = g("Relu", conv(g, image(g, 12), "a", 12, 24, 1, group=groups))
    h = g("Transpose", g("Reshape", h, [0, groups, 24 // groups, 8, 8]), perm=[0, 2, 1, 3, 4])
    h = conv(g, g("Reshape", h, [0, 24, 8, 8]), "dw", 24, 24, group=24)
    return classify(g, conv(g, h, "b", 24, 18, 1, group=groups), 18)


def channel_shuffle() -> onnx.ModelProto:
    """Two groups: 12·2 channels after the shuffle are 2·(6·2), so that whole sixths of a group may go."""
    return _shuffle("channel_shuffle", 2)


def channel_shuffle_odd() -> onnx.ModelProto:
    """Three groups: 8·3 channels fall into no three parts, which pins them."""
    return _shuffle("channel_shuffle_odd", 3)


def shuffle_split() -> onnx.ModelProto:
    """ShuffleNet V2: half passes by, the other is worked on, then the halves are interleaved."""
    g = Builder("shuffle_split")
    a, b = g("Split", image(g, 12), [6, 6], axis=1, n=2)
    b = g("Relu", conv(g, b, "a", 6, 6, 1))
    both = g("Reshape", g("Concat", a, b, axis=1), [0, 2, 6, 8, 8])
    h = g("Reshape", g("Transpose", both, perm=[0, 2, 1, 3, 4]), [0, 12, 8, 8])
    return classify(g, conv(g, h, "out", 12, 10, 1), 10)


def depthwise() -> onnx.ModelProto:
    """MobileNet: expand, depthwise, squeeze-and-excite, project, residual."""
    g = Builder("depthwise")
    h = image(g, 10)
    y = g("HardSwish", conv(g, h, "expand", 10, 24, 1))
    y = conv(g, y, "dw", 24, 24, group=24)
    s = g("Relu", conv(g, g("GlobalAveragePool", y), "squeeze", 24, 6, 1))
    y = g("Mul", y, g("HardSigmoid", conv(g, s, "excite", 6, 24, 1)))
    return classify(g, g("Add", h, conv(g, y, "project", 24, 10, 1)), 10)


def depthwise_multiplier() -> onnx.ModelProto:
    """Two filters a channel."""
    g = Builder("depthwise_multiplier")
    return classify(g, conv(g, g("Relu", conv(g, image(g, 6), "dw", 6, 12, group=6)), "b", 12, 10, 1), 10)


def depthwise_multiplier_residual() -> onnx.ModelProto:
    """FastViT: three filters a channel, and a residual over them: a weight with the same product on two axes."""
    g = Builder("depthwise_multiplier_residual")
    h = g("Relu", conv(g, image(g, 6), "dw", 6, 18, group=6))
    return classify(g, g("Add", h, conv(g, h, "mix", 18, 18, 1)), 18)


def grouped() -> onnx.ModelProto:
    """ResNeXt: a grouped convolution between two plain ones."""
    g = Builder("grouped")
    h = image(g, 10)
    y = g("Relu", conv(g, g("Relu", conv(g, h, "a", 10, 12, 1)), "b", 12, 20, group=4))
    return classify(g, g("Add", h, conv(g, y, "c", 20, 10, 1)), 10)


def padded_shortcut() -> onnx.ModelProto:
    """ResNet as it was published: a shortcut with fewer channels is padded with zeros, on both sides."""
    g = Builder("padded_shortcut")
    h = g("Relu", conv(g, image(g, 10), "a", 10, 7, 1))
    wide = g("Pad", h, [0, 2, 0, 0, 0, 5, 0, 0])
    y = g("Add", wide, conv(g, h, "b", 7, 14))
    return classify(g, conv(g, g("Relu", y), "c", 14, 10, 1), 10)


def two_group_counts() -> onnx.ModelProto:
    """The outputs of convolutions with 2 and with 3 groups are added."""
    g = Builder("two_group_counts")
    h = image(g, 12)
    y = g("Add", conv(g, h, "two", 12, 12, group=2), conv(g, h, "three", 12, 12, group=3))
    return classify(g, conv(g, g("Relu", y), "out", 12, 10, 1), 10)


def densenet() -> onnx.ModelProto:
    """Every layer sees all that came before."""
    g = Builder("densenet")
    parts, width = [image(g, 12)], 12
    for layer, growth in enumerate((5, 6, 7)):
        joined = parts[0] if len(parts) == 1 else g("Concat", *parts, axis=1)
        parts.append(g("Relu", conv(g, joined, f"l{layer}", width, growth)))
        width += growth
    return classify(g, g("Concat", *parts, axis=1), width)


def group_norm_reshaped() -> onnx.ModelProto:
    """GroupNorm as the exporters write it: Reshape, InstanceNormalization, Reshape, scale and bias."""
    g = Builder("group_norm_reshaped")
    h = conv(g, image(g, 10), "a", 10, 12)
    ones, zeros = g.const("ones", np.ones(4), np.float32), g.const("zeros", np.zeros(4), np.float32)
    flat = g("InstanceNormalization", g("Reshape", h, [0, 4, -1]), ones, zeros)
    h = g("Mul", g("Reshape", flat, g("Shape", h)), g.weight("scale", 12, 1, 1, scale=1.0))
    h = g("Add", h, g.weight("bias", 12, 1, 1, scale=1.0))
    return classify(g, g("Relu", conv(g, h, "b", 12, 9)), 9)


def group_norm_op() -> onnx.ModelProto:
    """Opset 21: scale and bias per channel."""
    g = Builder("group_norm_op", opset=21)
    h = conv(g, image(g, 10), "a", 10, 12)
    scale, bias = (g.weight(part, 12, scale=1.0) for part in ("scale", "bias"))
    h = g("GroupNormalization", h, scale, bias, num_groups=4)
    return classify(g, g("Relu", conv(g, h, "b", 12, 9)), 9)


def instance_norm() -> onnx.ModelProto:
    g = Builder("instance_norm")
    scale, bias = (g.weight(part, 12, scale=1.0) for part in ("scale", "bias"))
    h = g("InstanceNormalization", image(g, 12), scale, bias)
    return classify(g, g("Relu", conv(g, g("Relu", h), "a", 12, 10)), 10)


VISION: tuple[Callable[[], onnx.ModelProto], ...] = (
    *(residual_bn, cat_twice, c2f, unet, resize_sizes, conv_flatten_gemm, gemm_reshape_transposed, transposed_grouped),
    *(patch_merging, pixel_shuffle, space_to_depth, channel_shuffle, channel_shuffle_odd, shuffle_split),
    *(
        depthwise,
        depthwise_multiplier,
        depthwise_multiplier_residual,
        grouped,
        padded_shortcut,
        two_group_counts,
        densenet,
    ),
    *(group_norm_reshaped, group_norm_op, instance_norm),
)
