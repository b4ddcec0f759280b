"""A decoder with its cache of keys and values as inputs and outputs, as runtimes want it."""

from __future__ import annotations

import torch
import transformers as hf
from torch import Tensor, nn

from benchmarks.zoo.model import ZooModel, randomize

LAYERS, GROUPS, HEAD_DIM = 2, 2, 12


class CachedDecoder(nn.Module):
    """Calls a causal language model with a cache given and returned as plain tensors."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap `model`."""
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, key_0: Tensor, value_0: Tensor, key_1: Tensor, value_1: Tensor
    ) -> tuple[Tensor, ...]:
        """Return logits, then the keys and values of both layers, `[batch, group, past + sequence, head_dim]`."""
        cache = hf.DynamicCache([(key_0, value_0), (key_1, value_1)])
        result = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        present = [tensor for layer in result.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return result.logits, *present


def llama_cache() -> ZooModel:
    """Llama with two query heads a KV group, and five tokens in the cache."""
    config = hf.LlamaConfig(
        vocab_size=90,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=LAYERS,
        num_attention_heads=2 * GROUPS,
        num_key_value_heads=GROUPS,
        head_dim=HEAD_DIM,
        max_position_embeddings=64,
    )
    batch, tokens, past = 2, 3, 5
    names = [f"past_{what}_{k}" for k in range(LAYERS) for what in ("key", "value")]
    inputs = {
        "input_ids": torch.randint(0, 90, (batch, tokens)),
        "attention_mask": torch.ones(batch, past + tokens, dtype=torch.long),
        **{name: torch.randn(batch, GROUPS, past, HEAD_DIM) for name in names},
    }
    # The exporter finds out by itself that the mask covers past and sequence; naming that axis would contradict it.
    dynamic = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: torch.export.Dim.DYNAMIC}}
    dynamic |= {name: {0: "batch", 2: "past"} for name in names}
    outputs = ("logits", *(name.replace("past", "present") for name in names))
    return ZooModel(CachedDecoder(randomize(hf.LlamaForCausalLM(config))).eval(), inputs, dynamic, outputs)
