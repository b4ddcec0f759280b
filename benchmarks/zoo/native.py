"""Pairs of models: one to prune, and one built with the widths that pruning leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import transformers as hf
from timm.layers import set_fused_attn
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.zoo.model import ZooModel, randomize
from benchmarks.zoo.transformers_models import text, uncached

ALL = {kind: 0.5 for kind in ("head", "qk_dim", "v_dim", "ffn", "hidden")}


@dataclass(frozen=True, slots=True)
class Case:
    """What is built, and how the dense model is pruned.

    Attributes:
        dense: Builds the model that is pruned.
        native: Builds the one that it is compared with.
        ratio: Fraction removed, by kind.
        sequence: Length of the texts that both are timed on.
    """

    dense: Callable[[], ZooModel]
    native: Callable[[], ZooModel]
    ratio: Mapping[str, float]
    sequence: int = 128


class ThinAttention(nn.Module):
    """timm's attention with queries and keys of one width and values of another."""

    def __init__(self, width: int, heads: int, qk_dim: int, v_dim: int, *, fused: bool) -> None:
        """One packed projection makes all three."""
        super().__init__()
        self.heads, self.widths, self.fused = heads, [heads * qk_dim, heads * qk_dim, heads * v_dim], fused
        self.scale = qk_dim**-0.5
        self.qkv = nn.Linear(width, sum(self.widths))
        self.proj = nn.Linear(heads * v_dim, width)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """`[batch, tokens, width]` to the same."""
        batch, tokens, _ = x.shape
        q, k, v = (
            part.reshape(batch, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(self.widths, -1)
        )
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, self.widths[2]))


def deit(width: int, heads: int, ffn: int, qk_dim: int = 64, v_dim: int = 64, *, fused: bool = True) -> ZooModel:
    """A DeiT of 12 blocks at 224 pixels with the widths given."""
    set_fused_attn(fused)
    try:
        options = {"embed_dim": width, "num_heads": 1, "mlp_ratio": ffn / width}
        module = timm.create_model("deit_small_patch16_224", **options)
        for block in module.blocks:
            if qk_dim == v_dim:
                block.attn = Attention(width, heads, attn_head_dim=qk_dim, qkv_bias=True)
            else:
                block.attn = ThinAttention(width, heads, qk_dim, v_dim, fused=fused)
    finally:
        set_fused_attn(True)
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    return ZooModel(randomize(module).eval(), {"x": image}, {"x": {0: "batch"}}, ("logits",))


def bert(heads: int, ffn: int, attention: str = "sdpa") -> ZooModel:
    """MiniLM-L6's encoder with fewer heads of 32 and a narrower FFN; a small vocabulary, which costs no time."""
    config = hf.BertConfig(
        vocab_size=1000, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=ffn,
        attn_implementation=attention,
    )  # fmt: skip
    module = hf.BertModel(config, add_pooling_layer=False)
    for layer in module.encoder.layer:
        attn, out = layer.attention.self, layer.attention.output
        attn.num_attention_heads, attn.all_head_size = heads, 32 * heads
        attn.query, attn.key, attn.value = (nn.Linear(384, 32 * heads) for _ in range(3))
        out.dense = nn.Linear(32 * heads, 384)
    return text(module)


def gpt2(heads: int, ffn: int) -> ZooModel:
    """GPT-2 of 4 layers, width 384, heads of 32."""
    config = hf.GPT2Config(vocab_size=1000, n_positions=256, n_embd=384, n_layer=4, n_head=12, n_inner=ffn)
    module = hf.GPT2LMHeadModel(config)
    for block in module.transformer.h:
        attn = block.attn
        attn.num_heads, attn.split_size = heads, 32 * heads
        attn.c_attn, attn.c_proj = hf.pytorch_utils.Conv1D(96 * heads, 384), hf.pytorch_utils.Conv1D(384, 32 * heads)
    return uncached(module)


def llama(heads: int, kv_heads: int, ffn: int) -> ZooModel:
    """A Llama of 4 layers, width 384, heads of 32, keys and values shared."""
    config = hf.LlamaConfig(
        vocab_size=1000, hidden_size=384, intermediate_size=ffn, num_hidden_layers=4, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=32, max_position_embeddings=256,
    )  # fmt: skip
    return uncached(hf.LlamaForCausalLM(config))


def _deit(ratio: Mapping[str, float], *native: int, **options: Any) -> Case:
    return Case(lambda: deit(384, 6, 1536, **options), lambda: deit(*native, **options), ratio)


BLOCKS = {"head": 0.5, "ffn": 0.5}

CASES: dict[str, Case] = {
    "deit_half": _deit(ALL, 192, 3, 768, 32, 32),
    "deit_half_manual": _deit(ALL, 192, 3, 768, 32, 32, fused=False),
    "deit_blocks": _deit(BLOCKS, 384, 3, 768),
    "deit_uneven": _deit({"head": 0.5, "qk_dim": 0.5, "v_dim": 0.25, "ffn": 0.5}, 384, 3, 768, 32, 48),
    "minilm": Case(lambda: bert(12, 1536), lambda: bert(6, 768), BLOCKS),
    "bert_manual": Case(lambda: bert(12, 1536, "eager"), lambda: bert(6, 768, "eager"), BLOCKS),
    "gpt2": Case(lambda: gpt2(12, 1536), lambda: gpt2(6, 768), BLOCKS),
    "llama": Case(lambda: llama(12, 4, 1024), lambda: llama(6, 2, 512), {"kv_group": 0.5, "ffn": 0.5}),
}
