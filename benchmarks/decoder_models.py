"""Small decoders trained on sentences in a few CPU minutes: the dense models of benchmarks/decoder.py.

    python -m benchmarks.decoder_models [--model gpt2 llama] [--seed 0]

The sentences (reviews of films and products, newspapers) come with the sdist of vaderSentiment, cut into tokens by a
byte-pair encoding made of the training split. Everything made lies in `build/decoder`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from benchmarks.datasets import sentences
from benchmarks.harness import study_parser
from prunegraph.export.onnx_file import save
from prunegraph.export.torch_module import read_torch

CACHE = Path("build/decoder")
VOCABULARY, WINDOW = 1024, 64
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
WIDTH, LAYERS, HEADS, GROUPS = 128, 4, 8, 4
STEPS, BATCH, RATE, DECAY, WARMUP, CLIP = 600, 8, 3e-3, 0.1, 0.1, 1.0

Windows = npt.NDArray[np.int64]


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    shape = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": WINDOW}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape, **rates, **ends))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, max_position_embeddings=WINDOW,
        **ends,
    )  # fmt: skip
    return LlamaForCausalLM(config)


MODELS: Mapping[str, Callable[[], nn.Module]] = {"gpt2": _gpt2, "llama": _llama}
"""Learned positions, GELU and tied embeddings; rotary positions, SwiGLU, grouped queries and a head of its own."""


class Logits(nn.Module):
    """A decoder from token ids to logits, `[batch, sequence, vocabulary]`."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        logits: Tensor = self.decoder(input_ids=input_ids, use_cache=False).logits
        return logits


def windows(cache: Path = CACHE) -> dict[str, Windows]:
    """By split `[windows, 64]` token ids: sentences one after the other, the end of each marked."""
    path = cache / "windows.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        texts = sentences()
        order = np.random.default_rng(0).permutation(len(texts))
        ends = np.cumsum([int(share * len(texts)) for share in SHARES.values()])[:-1]
        parts = [[texts[k] for k in part] for part in np.split(order, ends)]
        tokenizer = _tokenizer(parts[0])
        tokenizer.save(str(cache / "tokenizer.json"))
        ids = {name: _cut(tokenizer, part) for name, part in zip(SHARES, parts, strict=True)}
        np.savez(path, **ids)
    with np.load(path) as arrays:
        return {name: arrays[name] for name in SHARES}


def _tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _cut(tokenizer: Tokenizer, texts: list[str]) -> Windows:
    stream = [token for encoding in tokenizer.encode_batch(texts) for token in (*encoding.ids, 0)]
    count = len(stream) // WINDOW
    return np.array(stream[: count * WINDOW], dtype=np.int64).reshape(count, WINDOW)


def trained(name: str, seed: int = 0, cache: Path = CACHE) -> Path:
    """The trained model as ONNX with a dynamic batch and sequence; trained now if it is not there."""
    path = cache / name / f"seed{seed}" / "model.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        module = _trained(name, seed, windows(cache)["train"])
        axes = {"input_ids": {0: "batch", 1: "sequence"}}
        save(read_torch(Logits(module).eval(), {"input_ids": torch.ones(2, 9, dtype=torch.int64)}, axes), path)
    return path


def _trained(name: str, seed: int, train: Windows) -> nn.Module:
    torch.manual_seed(seed)
    module, random = MODELS[name]().train(), np.random.default_rng(seed)
    matrices = [weight for weight in module.parameters() if weight.ndim > 1]
    vectors = [weight for weight in module.parameters() if weight.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RATE, weight_decay=DECAY, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=WARMUP)
    started, losses = time.process_time(), []
    for step in range(STEPS):
        ids = torch.from_numpy(train[random.choice(len(train), BATCH, replace=False)])
        logits = module(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            seconds = time.process_time() - started
            line = f"{name}: step {step + 1} of {STEPS}: loss {np.mean(losses[-50:]):.3f}, {seconds:.0f} CPU-s"
            Console(stderr=True).print(line)
    return module.eval()


def main() -> None:
    """Train where it is not done yet."""
    parser = study_parser("benchmarks.decoder_models", __doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed, name in itertools.product(given.seed, given.model):
        Console().print(str(trained(name, seed)))


if __name__ == "__main__":
    main()
