"""Parts of diffusion pipelines, small and with random weights, by both exporters of torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Inputs = dict[str, tuple[Any, ...]]
"""Shapes; integers for a step in time, a class or positions are drawn where the name says so."""

CONTEXT = {"sample": (2, 4, 16, 16), "timestep": (2,), "encoder_hidden_states": (2, 7, 32)}

SPECS: dict[str, tuple[str, dict[str, Any], Inputs]] = {
    "unet_condition": ("UNet2DConditionModel", {
        "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
        "attention_head_dim": 4, "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }, CONTEXT),
    "unet": ("UNet2DModel", {
        "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
        "attention_head_dim": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }, {"sample": (2, 3, 16, 16), "timestep": (2,)}),
    "vae": ("AutoencoderKL", {
        "block_out_channels": (16, 32), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }, {"sample": (2, 3, 16, 16)}),
    "vae_tiny": ("AutoencoderTiny", {
        "encoder_block_out_channels": (16, 16), "decoder_block_out_channels": (16, 16), "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }, {"sample": (2, 3, 16, 16)}),
    "vq": ("VQModel", {
        "block_out_channels": (16, 32), "layers_per_block": 1, "latent_channels": 3, "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }, {"sample": (2, 3, 16, 16)}),
    "dit": ("DiTTransformer2DModel", {
        "num_attention_heads": 4, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
        "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10, "norm_num_groups": 4,
    }, {"hidden_states": (2, 4, 8, 8), "timestep": (2,), "class_labels": (2,)}),
    "pixart": ("PixArtTransformer2DModel", {
        "num_attention_heads": 4, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
        "sample_size": 8, "patch_size": 2, "cross_attention_dim": 32, "caption_channels": 24, "norm_num_groups": 4,
    }, {"hidden_states": (2, 4, 8, 8), "encoder_hidden_states": (2, 7, 24), "timestep": (2,)}),
    "sd3": ("SD3Transformer2DModel", {
        "sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2,
        "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 32, "caption_projection_dim": 32,
        "pooled_projection_dim": 24, "pos_embed_max_size": 16,
    }, {
        "hidden_states": (2, 4, 8, 8), "encoder_hidden_states": (2, 7, 32), "pooled_projections": (2, 24),
        "timestep": (2,),
    }),
    "flux": ("FluxTransformer2DModel", {
        "patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 24, "axes_dims_rope": (4, 4, 8),
    }, {
        "hidden_states": (2, 16, 4), "encoder_hidden_states": (2, 7, 32), "pooled_projections": (2, 24),
        "timestep": (2,), "img_ids": (16, 3), "txt_ids": (7, 3),
    }),
}  # fmt: skip


def _inputs(shapes: Inputs) -> dict[str, Any]:
    import torch

    drawn = {}
    for name, shape in shapes.items():
        drawn[name] = torch.randn(*shape)
        if name in ("timestep", "class_labels"):
            drawn[name] = torch.tensor([3, 5])
        if name.endswith("_ids"):
            drawn[name] = torch.arange(float(shape[0] * shape[1])).reshape(shape) % 5
    return drawn


def _maker(name: str, exporter: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import diffusers
        import torch

        from benchmarks.zoo.model import FirstOutput, ZooModel, export, randomize

        torch.manual_seed(0)
        architecture, options, shapes = SPECS[name]
        module = randomize(getattr(diffusers, architecture)(**options).eval())
        inputs = _inputs(shapes)
        dynamic = {key: {0: "batch"} for key in inputs if not key.endswith("_ids")}
        wrapped = FirstOutput(module, tuple(inputs), return_dict=False).eval()
        export(ZooModel(wrapped, inputs, dynamic, ("output",)), exporter, folder / "model.onnx")

    return make


MODELS = {
    "diffusers": {f"{name}-{exporter}": _maker(name, exporter) for exporter in ("legacy", "dynamo") for name in SPECS}
}
