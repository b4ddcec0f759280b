"""Models of Hugging Face transformers, small, as Optimum writes them: with caches, merged decoders, symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCAB, POSITIONS, WIDTH, LAYERS, HEADS, FFN, CLASSES = 99, 64, 48, 2, 4, 80, 3
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": FFN, "max_position_embeddings": POSITIONS, "num_labels": CLASSES, "pad_token_id": 0,
}  # fmt: skip
LLAMA: dict[str, Any] = BERT | SPECIAL | {"num_key_value_heads": 2}
IMAGE: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": FFN, "num_labels": CLASSES,
}  # fmt: skip
BART: dict[str, Any] = SPECIAL | {
    "vocab_size": VOCAB, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "encoder_ffn_dim": FFN, "decoder_ffn_dim": FFN,
    "max_position_embeddings": POSITIONS, "decoder_start_token_id": 2,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 10, "d_ff": FFN, "num_layers": LAYERS, "num_heads": HEADS,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "decoder_start_token_id": 0,
}  # fmt: skip
SPEECH: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": FFN,
    "conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "vocab_size": 30,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "pad_token_id": 0,
}  # fmt: skip
CLASSIFY, GENERATE, TRANSLATE = "text-classification", "text-generation-with-past", "text2text-generation-with-past"
SEEN = "image-classification"

Spec = tuple[str, str, str, dict[str, Any]]
"""Configuration, class, task, and options of the configuration."""

SPECS: dict[str, Spec] = {
    "bert": ("BertConfig", "BertForSequenceClassification", CLASSIFY, BERT),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification", CLASSIFY, {
        "vocab_size": VOCAB, "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": FFN,
        "max_position_embeddings": POSITIONS,
    }),
    "roberta": ("RobertaConfig", "RobertaModel", "feature-extraction", BERT),
    "albert": ("AlbertConfig", "AlbertForSequenceClassification", CLASSIFY, BERT | {"embedding_size": 20}),
    "deberta_v2": ("DebertaV2Config", "DebertaV2ForSequenceClassification", CLASSIFY, BERT | {
        "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
    }),
    "modernbert": ("ModernBertConfig", "ModernBertForSequenceClassification", CLASSIFY, BERT | SPECIAL | {
        "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8, "global_attn_every_n_layers": 2,
        "reference_compile": False,
    }),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GENERATE, SPECIAL | {
        "vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": FFN,
        "n_positions": POSITIONS,
    }),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", GENERATE, BERT | {"rotary_pct": 0.5}),
    "opt": ("OPTConfig", "OPTForCausalLM", GENERATE, {
        "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "ffn_dim": FFN, "max_position_embeddings": POSITIONS, "word_embed_proj_dim": WIDTH,
    }),
    "bloom": ("BloomConfig", "BloomForCausalLM", GENERATE, {
        "vocab_size": VOCAB, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS,
    }),
    "llama": ("LlamaConfig", "LlamaForCausalLM", GENERATE, LLAMA),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", GENERATE, LLAMA | {"head_dim": 10}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", GENERATE, LLAMA | {"head_dim": 10}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", GENERATE, LLAMA),
    "t5": ("T5Config", "T5ForConditionalGeneration", TRANSLATE, T5),
    "bart": ("BartConfig", "BartForConditionalGeneration", TRANSLATE, BART),
    "marian": ("MarianConfig", "MarianMTModel", TRANSLATE, BART),
    "whisper": ("WhisperConfig", "WhisperForConditionalGeneration", "automatic-speech-recognition-with-past", BART | {
        "num_mel_bins": 16, "max_source_positions": 1500, "max_target_positions": POSITIONS,
    }),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForCTC", "automatic-speech-recognition", SPEECH),
    "vit": ("ViTConfig", "ViTForImageClassification", SEEN, IMAGE),
    "beit": ("BeitConfig", "BeitForImageClassification", SEEN, IMAGE),
    "dinov2": ("Dinov2Config", "Dinov2ForImageClassification", SEEN, IMAGE | {"mlp_ratio": 2}),
    "swin": ("SwinConfig", "SwinForImageClassification", SEEN, {
        "image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4,
        "num_labels": CLASSES,
    }),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", SEEN, {
        "hidden_sizes": [12, 20, 28, 36], "depths": [1, 1, 2, 1], "num_labels": CLASSES,
    }),
    "resnet": ("ResNetConfig", "ResNetForImageClassification", SEEN, {
        "embedding_size": 16, "hidden_sizes": [32, 48], "depths": [1, 1], "num_labels": CLASSES,
    }),
    "mobilevit": ("MobileViTConfig", "MobileViTForImageClassification", SEEN, {
        "image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 12, 16, 20, 24, 28, 64],
        "num_attention_heads": 4, "num_labels": CLASSES,
    }),
    "segformer": ("SegformerConfig", "SegformerForSemanticSegmentation", "semantic-segmentation", {
        "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
        "decoder_hidden_size": 24, "num_labels": CLASSES,
    }),
    "clip": ("CLIPConfig", "CLIPModel", "zero-shot-image-classification", {
        "projection_dim": 20,
        "text_config": BERT | SPECIAL | {"projection_dim": 20},
        "vision_config": IMAGE | {"projection_dim": 20},
    }),
}  # fmt: skip


def _maker(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import torch
        import transformers
        from optimum.exporters.onnx import onnx_export_from_model

        from benchmarks.zoo.model import randomize

        torch.manual_seed(0)
        config, architecture, task, options = SPECS[name]
        model = getattr(transformers, architecture)(getattr(transformers, config)(**options)).eval()
        onnx_export_from_model(randomize(model), folder, task=task, do_validation=False)

    return make


FIRST = ("bert", "llama", "t5", "vit", "whisper", "segformer", "gpt2", "wav2vec2")
"""Those that differ most come first, for a run of a few of each exporter."""

MODELS = {"optimum": {name: _maker(name) for name in dict.fromkeys((*FIRST, *SPECS))}}
