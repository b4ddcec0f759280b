"""Models of Hugging Face transformers, small, from configurations: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from benchmarks.zoo.model import FirstOutput, ZooModel, randomize

VOCAB, POSITIONS, BATCH, SEQUENCE = 99, 40, 2, 7
WIDTH, LAYERS, HEADS, FFN, CLASSES = 48, 2, 4, 80, 3
BERT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": FFN, "max_position_embeddings": POSITIONS, "num_labels": CLASSES,
}  # fmt: skip
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA: dict[str, Any] = BERT | SPECIAL | {"num_key_value_heads": 2}
MIXTURE: dict[str, Any] = {
    "num_experts_per_tok": 2,
    "experts_implementation": "batched_mm",  # the only spelling that either exporter takes
}
IMAGE: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": FFN, "num_labels": CLASSES,
}  # fmt: skip
TEXT_AXES = {0: "batch", 1: "sequence"}
BATCH_AXIS = {0: "batch"}


def wrap(module: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, str]], **fixed: Any) -> ZooModel:
    """Make a zoo model of a module whose outputs come in a dataclass; the first one is exported."""
    wrapper = FirstOutput(randomize(module), tuple(inputs), **fixed).eval()
    return ZooModel(wrapper, inputs, dynamic, ("output",))


def tokens(length: int = SEQUENCE, seed: int = 1) -> Tensor:
    """Return random token ids without the special ones, shape [batch, length]."""
    return torch.randint(3, VOCAB, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def padding_mask() -> Tensor:
    """Return a mask whose last sequence ends two tokens early, shape [batch, sequence]."""
    mask = torch.ones(BATCH, SEQUENCE, dtype=torch.long)
    mask[-1, -2:] = 0
    return mask


def noise(*shape: int) -> Tensor:
    """Return random numbers, shape [batch, …]."""
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(1))


def pixels(size: int = 32) -> Tensor:
    """Return random images, shape [batch, 3, size, size]."""
    return noise(3, size, size)


def text(module: nn.Module, **fixed: Any) -> ZooModel:
    """Wrap a model that reads token ids and a padding mask."""
    inputs = {"input_ids": tokens(), "attention_mask": padding_mask()}
    return wrap(module, inputs, dict.fromkeys(inputs, TEXT_AXES), **fixed)


def uncached(module: nn.Module) -> ZooModel:
    """Wrap a language model, without its cache."""
    return text(module, use_cache=False)


def step_by_step(module: nn.Module) -> ZooModel:
    """Wrap a model that reads token ids one by one, so that its graph is as long as the text."""
    return wrap(module, {"input_ids": tokens()}, {"input_ids": BATCH_AXIS}, use_cache=False)


def windows(module: nn.Module) -> ZooModel:
    """Wrap a model whose windows are cut by Python code: the length cannot vary."""
    inputs = {"input_ids": tokens(8), "attention_mask": torch.ones(BATCH, 8, dtype=torch.long)}
    return wrap(module, inputs, dict.fromkeys(inputs, BATCH_AXIS))


def sequence_to_sequence(module: nn.Module) -> ZooModel:
    """Wrap a model with an encoder and a decoder over token ids."""
    inputs = {"input_ids": tokens(), "attention_mask": padding_mask(), "decoder_input_ids": tokens(5, seed=2)}
    dynamic = dict.fromkeys(inputs, TEXT_AXES) | {"decoder_input_ids": {0: "batch", 1: "decoder_sequence"}}
    return wrap(module, inputs, dynamic, use_cache=False)


def image(module: nn.Module, size: int = 32) -> ZooModel:
    """Wrap a model that reads images."""
    return wrap(module, {"pixel_values": pixels(size)}, {"pixel_values": {0: "batch"}})


def words_and_image(module: nn.Module) -> ZooModel:
    """Wrap a model that reads texts and images."""
    inputs = {"input_ids": tokens(), "attention_mask": padding_mask(), "pixel_values": pixels()}
    return wrap(module, inputs, {**dict.fromkeys(list(inputs)[:2], TEXT_AXES), "pixel_values": {0: "images"}})


def sound(module: nn.Module) -> ZooModel:
    """Wrap a model that hears samples."""
    return wrap(module, {"input_values": noise(400)}, {"input_values": BATCH_AXIS})


def speech(module: nn.Module) -> ZooModel:
    """Wrap a model that turns bands of sound into tokens."""
    inputs = {"input_features": noise(10, 30), "decoder_input_ids": tokens(5)}
    dynamic = {"input_features": BATCH_AXIS, "decoder_input_ids": {0: "batch", 1: "decoder_sequence"}}
    return wrap(module, inputs, dynamic, use_cache=False)


def _model(name: str, task: str, wrapper: Callable[[nn.Module], ZooModel], /, **options: Any) -> Callable[[], ZooModel]:
    """A builder of the class NAME + TASK with a configuration of these options."""
    return lambda: wrapper(getattr(hf, name + task)(getattr(hf, name + "Config")(**options)))


def _encoder(name: str, task: str = "ForSequenceClassification", **options: Any) -> Callable[[], ZooModel]:
    return _model(name, task, text, **(BERT | options))


def _decoder(name: str, task: str = "ForCausalLM", **options: Any) -> Callable[[], ZooModel]:
    return _model(name, task, uncached, **(SPECIAL | options))


def _detr() -> ZooModel:
    backbone = hf.ResNetConfig(
        embedding_size=12, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = hf.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=WIDTH,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
        encoder_ffn_dim=FFN, decoder_ffn_dim=72, num_queries=6, num_labels=CLASSES,
    )  # fmt: skip
    return image(hf.DetrForObjectDetection(config), 64)


T5: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 10, "d_ff": FFN, "num_layers": LAYERS, "num_decoder_layers": 3,
    "num_heads": HEADS, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
TWO_STACKS: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": 3,
    "encoder_attention_heads": HEADS, "decoder_attention_heads": 3, "encoder_ffn_dim": FFN, "decoder_ffn_dim": 72,
    **SPECIAL,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": FFN, "n_positions": POSITIONS,
}  # fmt: skip
TOWER = {"projection_dim": 20, "num_hidden_layers": LAYERS, "intermediate_size": FFN}
WORDS = TOWER | SPECIAL | {
    "vocab_size": VOCAB, "hidden_size": 36, "num_attention_heads": 3, "max_position_embeddings": POSITIONS,
}  # fmt: skip
LOOKS = TOWER | {"hidden_size": WIDTH, "num_attention_heads": HEADS, "image_size": 32, "patch_size": 8}

TRANSFORMERS: dict[str, Callable[[], ZooModel]] = {
    "bert": _encoder("Bert"),
    "gpt2": _decoder("GPT2", "LMHeadModel", **GPT2),
    "llama": _decoder("Llama", **(LLAMA | {"hidden_size": 96, "num_attention_heads": 8})),
    "t5": _model("T5", "ForConditionalGeneration", sequence_to_sequence, **T5),
    "t5_encoder": _model("T5", "EncoderModel", text, **T5),
    "longt5": _model("LongT5", "ForConditionalGeneration", sequence_to_sequence, **T5, local_radius=15),
    "distilbert": _model(
        "DistilBert", "ForSequenceClassification", text, vocab_size=VOCAB, dim=WIDTH, n_layers=LAYERS, n_heads=HEADS,
        hidden_dim=FFN, max_position_embeddings=POSITIONS, num_labels=CLASSES,
    ),
    "bert_base_model": _encoder("Bert", "Model"),
    "bert_mlm": _encoder("Bert", "ForMaskedLM"),
    "roberta": _encoder("Roberta"),
    "albert": _encoder("Albert", embedding_size=20),
    "electra": _encoder("Electra", embedding_size=20),
    "mpnet": _encoder("MPNet"),
    "deberta_v2": _encoder(
        "DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True,
    ),
    "modernbert": _encoder(
        "ModernBert", **SPECIAL, local_attention=6, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2
    ),
    "longformer": _model(
        "Longformer", "ForSequenceClassification", windows, **(BERT | {"max_position_embeddings": 64}),
        attention_window=[4, 4], onnx_export=True,
    ),
    "mobilebert": _encoder(
        "MobileBert", embedding_size=20, intra_bottleneck_size=24, true_hidden_size=24, num_feedforward_networks=2
    ),
    "roformer": _encoder("RoFormer", embedding_size=20),
    "convbert": _encoder("ConvBert", embedding_size=20, conv_kernel_size=5, num_groups=2),
    "fnet": _encoder("FNet"),
    "squeezebert": _encoder("SqueezeBert", embedding_size=WIDTH),
    "nystromformer": _encoder("Nystromformer", segment_means_seq_len=7, num_landmarks=7, conv_kernel_size=3),
    "bart": _model(
        "Bart", "ForConditionalGeneration", sequence_to_sequence, **TWO_STACKS, max_position_embeddings=POSITIONS,
        decoder_start_token_id=2,
    ),
    "gpt_neo": _decoder(
        "GPTNeo", vocab_size=VOCAB, hidden_size=WIDTH, num_layers=LAYERS, num_heads=HEADS, intermediate_size=FFN,
        max_position_embeddings=POSITIONS, attention_types=[[["global", "local"], 1]], window_size=4,
    ),
    "gpt_neox": _decoder("GPTNeoX", **BERT, rotary_pct=0.5),
    "gptj": _decoder("GPTJ", **GPT2, rotary_dim=8),
    "opt": _decoder(
        "OPT", vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, ffn_dim=FFN,
        max_position_embeddings=POSITIONS, word_embed_proj_dim=WIDTH,
    ),
    "bloom": _decoder("Bloom", vocab_size=VOCAB, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS),
    "mistral": _decoder("Mistral", **LLAMA, sliding_window=5, head_dim=10),
    "qwen2": _decoder("Qwen2", **LLAMA),
    "qwen3": _decoder("Qwen3", **LLAMA, head_dim=10),
    "gemma": _decoder("Gemma", **(LLAMA | {"num_key_value_heads": 1}), head_dim=10),
    "gemma2": _decoder("Gemma2", **LLAMA, head_dim=10, sliding_window=5),
    "phi": _decoder("Phi", **LLAMA, partial_rotary_factor=0.5),
    "phi3": _decoder("Phi3", **LLAMA),
    "falcon": _decoder(
        "Falcon", vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        ffn_hidden_size=FFN, multi_query=True, new_decoder_architecture=False,
    ),
    "olmo2": _decoder("Olmo2", **LLAMA),
    "stablelm": _decoder("StableLm", **LLAMA, use_parallel_residual=True, partial_rotary_factor=0.5),
    "cohere": _decoder("Cohere", **LLAMA, use_qk_norm=False),
    "mixtral": _decoder("Mixtral", **LLAMA, **MIXTURE, num_local_experts=5),
    "qwen2_moe": _decoder(
        "Qwen2Moe", **LLAMA, **MIXTURE, num_experts=5, moe_intermediate_size=36,
        shared_expert_intermediate_size=44,
    ),
    "gpt_oss": _decoder("GptOss", **LLAMA, **MIXTURE, num_local_experts=5, head_dim=12, sliding_window=5),
    "deepseek_v3": _decoder(
        "DeepseekV3", **(LLAMA | {"num_key_value_heads": HEADS}), **MIXTURE, n_routed_experts=6, n_group=2,
        topk_group=1, moe_intermediate_size=36, first_k_dense_replace=1, q_lora_rank=20, kv_lora_rank=16,
        qk_rope_head_dim=8, qk_nope_head_dim=10, v_head_dim=14,
    ),
    "mamba": _model(
        "Mamba", "ForCausalLM", step_by_step, vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        state_size=6,
    ),
    "hf_vit": _model("ViT", "ForImageClassification", image, **IMAGE),
    "dinov2": _model("Dinov2", "ForImageClassification", image, **IMAGE, mlp_ratio=2),
    "hf_convnext": _model(
        "ConvNext", "ForImageClassification", image, hidden_sizes=[12, 20, 28, 36], depths=[1, 1, 2, 1],
        num_labels=CLASSES,
    ),
    "clip_text": _model("CLIPText", "ModelWithProjection", text, **WORDS),
    "clip_vision": _model("CLIPVision", "ModelWithProjection", image, **LOOKS),
    "clip": _model("CLIP", "Model", words_and_image, text_config=WORDS, vision_config=LOOKS, projection_dim=20),
    "segformer": _model(
        "Segformer", "ForSemanticSegmentation", lambda module: image(module, 64), num_encoder_blocks=3,
        depths=[1, 2, 1], sr_ratios=[4, 2, 1], hidden_sizes=[12, 20, 36], patch_sizes=[7, 3, 3], strides=[4, 2, 2],
        num_attention_heads=[1, 2, 3], mlp_ratios=[2, 3, 2], decoder_hidden_size=28, num_labels=CLASSES,
    ),
    "detr": _detr,
    "whisper": _model(
        "Whisper", "ForConditionalGeneration", speech, **TWO_STACKS, num_mel_bins=10, max_source_positions=15,
        max_target_positions=POSITIONS, decoder_start_token_id=1,
    ),
    "wav2vec2": _model(
        "Wav2Vec2", "ForSequenceClassification", sound, **(BERT | {"vocab_size": 32}), conv_dim=(12, 20, 28),
        conv_kernel=(10, 3, 2), conv_stride=(5, 2, 2), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        classifier_proj_size=36,
    ),
}  # fmt: skip
