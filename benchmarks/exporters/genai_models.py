"""Small decoders as the model builder of ONNX Runtime GenAI writes them: fused attention, caches, int4 and float16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.exporters.optimum_models import LLAMA

WIDE = LLAMA | {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 128, "head_dim": 16, "num_attention_heads": 4}

SPECS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "fp32", {}),
    "llama_float16": ("Llama", "fp16", {}),
    "llama_int4": ("Llama", "int4", {}),
    "mistral": ("Mistral", "fp32", {"sliding_window": 8}),
    "qwen2": ("Qwen2", "fp32", {}),
    "qwen3": ("Qwen3", "fp32", {}),
    "phi3": ("Phi3", "fp32", {"original_max_position_embeddings": 64}),
    "gemma": ("Gemma", "fp32", {"num_key_value_heads": 1}),
}


def _maker(family: str, precision: str, options: dict[str, Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import torch
        import transformers
        from onnxruntime_genai.models.builder import create_model, parse_extra_options

        from benchmarks.zoo.model import randomize

        torch.manual_seed(0)
        source, cache = folder / "source", folder / "cache"
        config = getattr(transformers, f"{family}Config")(**(WIDE | options))
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        randomize(model).save_pretrained(source)  # type: ignore[operator]
        _tokenizer(config.vocab_size).save_pretrained(source)
        where = ("", str(source), str(folder), precision, "cuda" if precision == "fp16" else "cpu", str(cache))
        create_model(*where, **parse_extra_options(*where, ["hf_token=false"]))

    return make


def _tokenizer(words: int) -> Any:
    """As many words as the model has rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: k for k, word in enumerate([*names, *(f"w{k}" for k in range(words - 4))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), names, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


MODELS = {"genai": {name: _maker(*spec) for name, spec in SPECS.items()}}
