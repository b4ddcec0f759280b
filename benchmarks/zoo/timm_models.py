"""Vision models of timm and torchvision, small: two or three blocks, sizes that no two axes share by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.layers import ClassifierHead, GatedMlp, set_fused_attn
from timm.models.efficientnet import _gen_efficientnet
from timm.models.focalnet import FocalNet
from timm.models.metaformer import GroupNorm1, MetaFormer
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.vgg import VGG, ConvMlp
from timm.models.volo import VOLO
from torch import nn
from torchvision.models import googlenet
from torchvision.models.shufflenetv2 import ShuffleNetV2

from benchmarks.zoo.model import ZooModel, randomize

CLASSES = 7
VIT: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 1.75}


def image_model(module: nn.Module, size: tuple[int, int]) -> ZooModel:
    """Wrap a network that takes one batch of RGB images of the given height and width."""
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    return ZooModel(randomize(module).eval(), {"x": image}, {"x": {0: "batch"}}, ("logits",))


def _timm(
    name: str, size: int | tuple[int, int] = 64, *, fixed: bool = False, fused: bool = True, **options: Any
) -> Callable[[], ZooModel]:
    """Return a builder.

    Args:
        name: timm's name.
        size: Height and width of the images.
        fixed: The network is told the size when it is made.
        fused: Attention is one call of torch; the dynamo exporter takes that only if it is 4-D.
        options: Passed to timm.
    """
    height_width = (size, size) if isinstance(size, int) else size

    def build() -> ZooModel:
        sized = {"img_size": height_width} if fixed else {}
        set_fused_attn(fused)
        try:
            module = timm.create_model(name, num_classes=CLASSES, **sized, **options)
        finally:
            set_fused_attn(True)
        return image_model(module, height_width)

    return build


def _built(make: Callable[[], nn.Module], size: tuple[int, int] = (64, 64)) -> Callable[[], ZooModel]:
    """A builder of a network that `timm.create_model` does not make so small."""
    return lambda: image_model(make(), size)


def _mixer(patch: int, size: tuple[int, int], **options: Any) -> Callable[[], ZooModel]:
    return _built(lambda: MlpMixer(CLASSES, size, patch_size=patch, num_blocks=2, embed_dim=44, **options), size)


def _poolformer() -> nn.Module:
    return MetaFormer(
        num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(12, 20, 28, 36), mlp_act=nn.GELU, mlp_bias=True,
        norm_layers=GroupNorm1, downsample_norm=None, layer_scale_init_values=1e-5, res_scale_init_values=None,
        use_mlp_head=False,
    )  # fmt: skip


def _vgg() -> nn.Module:
    layers = [12, "M", 20, "M", 28, 36, "M", 44, "M", 52, "M"]
    module = VGG(layers, num_classes=CLASSES, mlp_ratio=0.01)
    module.pre_logits = ConvMlp(52, 60, kernel_size=7)  # VGG itself always makes 4096 features here
    module.head = ClassifierHead(60, CLASSES)
    return module


TIMM: dict[str, Callable[[], ZooModel]] = {
    "deit": _timm("deit_tiny_patch16_224", (32, 48), fixed=True, **VIT),
    "vit": _timm("vit_tiny_patch16_224", 48, fixed=True, embed_dim=60, depth=2, num_heads=5, mlp_ratio=1.5),
    "vit_qk_norm": _timm("vit_tiny_patch16_224", 48, fixed=True, **VIT, qk_norm=True, global_pool="avg"),
    "deit3": _timm("deit3_small_patch16_224", (32, 48), fixed=True, **VIT),
    "swin": _timm(
        "swin_tiny_patch4_window7_224", 64, fixed=True,
        embed_dim=20, depths=(2, 2), num_heads=(2, 5), window_size=4, mlp_ratio=3.2,
    ),
    "swinv2": _timm(
        "swinv2_tiny_window8_256", 64, fixed=True,
        embed_dim=20, depths=(2, 2), num_heads=(2, 5), window_size=4, mlp_ratio=3.2,
    ),
    "pvt_v2": _timm(
        "pvt_v2_b0", embed_dims=(12, 20, 36, 48), depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4), mlp_ratios=(2, 3, 3, 2),
    ),
    "efficientformer": _timm("efficientformer_l1", 224, embed_dims=(12, 20, 28, 36), depths=(1, 1, 1, 2), num_vit=1),
    "efficientformerv2": _timm(
        "efficientformerv2_s0", 224, embed_dims=(12, 20, 28, 36), depths=(1, 1, 2, 2), num_vit=1,
        mlp_ratios=(2, 2, (3, 2), (2, 3)),
    ),
    "mobilevit": _timm("mobilevit_xxs"),
    "mobilevitv2": _timm("mobilevitv2_050"),
    "cait": _timm("cait_xxs24_224", (32, 48), fixed=True, **VIT),
    "xcit": _timm("xcit_nano_12_p16_224", (32, 48), fixed=True, **VIT),
    "beit": _timm("beit_base_patch16_224", (32, 48), fixed=True, **VIT),
    "eva02": _timm("eva02_tiny_patch14_224", (28, 42), fixed=True, **VIT),
    "tiny_vit": _timm(
        "tiny_vit_5m_224", 64, embed_dims=(12, 20, 36, 48), depths=(1, 1, 2, 1), num_heads=(1, 2, 3, 4),
        window_sizes=(4, 4, 4, 2),
    ),
    "maxvit": _timm(
        "maxvit_pico_rw_256", 64, fixed=True, embed_dim=(32, 64, 96, 128), depths=(1, 1, 1, 1), stem_width=(12, 20),
    ),
    "coatnet": _timm(
        "coatnet_0_rw_224", 64, fixed=True, embed_dim=(32, 64, 96, 128), depths=(1, 1, 1, 1), stem_width=(12, 20),
    ),
    "convnext": _timm("convnext_atto", dims=(12, 20, 28, 36), depths=(1, 1, 2, 1)),
    "convnextv2": _timm("convnextv2_atto", dims=(12, 20, 28, 36), depths=(1, 1, 2, 1)),
    "mixer": _mixer(32, (96, 64), mlp_ratio=(0.75, 2.5)),
    "resmlp": _mixer(16, (32, 48), mlp_ratio=2.5, block_layer=ResBlock, norm_layer=Affine),
    "gmlp": _mixer(
        16, (32, 48), mlp_ratio=3, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp,
    ),
    "poolformer": _built(_poolformer),
    "resnet": _timm("resnet26", layers=(1, 2, 1, 1), channels=(12, 20, 28, 36)),
    "resnet_basic": _timm("resnet18", layers=(2, 1, 1, 2), channels=(12, 20, 28, 36)),
    "resnext": _timm("resnext50_32x4d", layers=(1, 2, 1, 1), channels=(12, 20, 28, 36), cardinality=4, base_width=16),
    "wide_resnet": _timm("wide_resnet50_2", layers=(1, 2, 1, 1), channels=(12, 20, 28, 36)),
    "seresnet": _timm("seresnet50", layers=(1, 2, 1, 1), channels=(16, 24, 32, 40)),
    "resnest": _timm("resnest14d", layers=(1, 1, 1, 1), channels=(16, 24, 32, 40)),
    "densenet": _timm("densenet121", growth_rate=10, block_config=(2, 3, 2, 2)),
    "mobilenetv2": _timm("mobilenetv2_035"),
    "mobilenetv3": _timm("mobilenetv3_small_050"),
    "efficientnet": _built(
        lambda: _gen_efficientnet("efficientnet_b0", channel_multiplier=0.3, depth_multiplier=0.6, num_classes=CLASSES)
    ),
    "regnetx": _timm("regnetx_002"),
    "regnety": _timm("regnety_002"),
    "vgg": _built(_vgg, (224, 224)),
    "shufflenet": _built(lambda: ShuffleNetV2([2, 2, 2], [12, 24, 40, 72, 56], num_classes=CLASSES)),
    "googlenet": _built(lambda: googlenet(num_classes=CLASSES, aux_logits=False, init_weights=False)),
    "nfnet": _timm("nfnet_l0", depths=(1, 1, 2, 1), channels=(64, 96, 128, 160), group_size=16, attn_kwargs={}),
    "ghostnet": _timm("ghostnet_050"),
    "levit": _timm("levit_128s", 224, embed_dim=(32, 48, 64), num_heads=(2, 3, 4), key_dim=12, depth=(1, 1, 1)),
    "crossvit": _timm("crossvit_9_240", 240, embed_dim=[24, 48], num_heads=[2, 4], depth=[[1, 2, 0]]),
    "coat": _timm(
        "coat_lite_tiny", 64, fixed=True, embed_dims=(16, 24, 32, 40), serial_depths=(1, 1, 1, 1), num_heads=8,
        mlp_ratios=(2, 2, 3, 3),
    ),
    "mvitv2": _built(
        lambda: MultiScaleVit(MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=24), (64, 64), num_classes=CLASSES)
    ),
    "volo": _built(
        lambda: VOLO(
            [1, 1, 1, 1], 64, num_classes=CLASSES, stem_hidden_dim=20, embed_dims=[24, 36, 36, 36],
            num_heads=[2, 3, 3, 3], use_aux_head=False,
        )
    ),
    "convit": _timm("convit_tiny", (48, 48), fixed=True, embed_dim=48, depth=3, num_heads=4, local_up_to_layer=2),
    "davit": _timm(
        "davit_tiny", 64, depths=(1, 1, 1, 1), embed_dims=(12, 24, 36, 48), num_heads=(1, 2, 3, 4), window_size=4
    ),
    "edgenext": _timm("edgenext_xx_small", depths=(1, 2, 2, 2), dims=(16, 24, 32, 48), heads=(4, 4, 4, 4)),
    "fastvit": _timm("fastvit_t8", layers=(1, 1, 1, 1), embed_dims=(24, 48, 96, 192)),
    "hrnet": _timm("hrnet_w18_small"),
    "twins": _timm(
        "twins_svt_small", 64, fixed=True, fused=False,
        embed_dims=(12, 20, 36, 48), depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4), wss=(4, 4, 2, 2),
    ),
    "visformer": _timm("visformer_tiny", 64, fixed=True, embed_dim=48, depth=(1, 2, 1), num_heads=4),
    "pit": _timm("pit_ti_224", 64, fixed=True, base_dims=(12, 12, 12), depth=(1, 1, 1), heads=(1, 2, 4)),
    "hiera": _timm("hiera_tiny_224", 224, fused=False, embed_dim=24, num_heads=1, stages=(1, 1, 2, 1)),
    "focalnet": _built(lambda: FocalNet(num_classes=CLASSES, embed_dim=20, depths=(1, 1, 2, 1))),
    "repvgg": _timm("repvgg_a0"),
    "cspdarknet": _timm("cs3darknet_focus_s"),
    "inception": _timm("inception_next_atto"),
    "vovnet": _timm("ese_vovnet19b_slim_dw"),
    "dinov2_reg": _timm(
        "vit_small_patch14_reg4_dinov2", (28, 42), fixed=True, **VIT
    ),
    "vit_swiglu": _timm("vit_giant_patch14_dinov2", (28, 42), fixed=True, **VIT),
    "siglip": _timm("vit_base_patch16_siglip_224", (32, 48), fixed=True, **VIT),
}  # fmt: skip
