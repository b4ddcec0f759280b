"""Prune a decoder together with its key-value cache, and generate with what is left.

    python examples/decoder_with_cache.py

A cache is an input and an output of the model, and those stay as they are unless you say otherwise: whoever runs the
model has to make a smaller cache then.  The model is made and trained here.  Needs `prunegraph[torch]`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional as F

import prunegraph as pg

TEXT = "the quick brown fox jumps over the lazy dog. "
LETTERS = sorted(set(TEXT))
WIDTH, HEADS, HEAD_DIM, FFN = 64, 8, 8, 256


class Decoder(nn.Module):
    """One decoder layer: letters in, logits of the next letter and a longer cache out."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.positions = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(512, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, HEADS * HEAD_DIM) for _ in range(3))
        self.out = nn.Linear(HEADS * HEAD_DIM, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, FFN), nn.Linear(FFN, WIDTH)
        self.norm1, self.norm2, self.head = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(LETTERS))

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, past_key: torch.Tensor, past_value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, keys and values; caches are [batch, heads, positions, head dim]."""
        batch, length = input_ids.shape
        x = self.letters(input_ids) + self.positions(position_ids)
        normed = self.norm1(x)
        q, k, v = (
            project(normed).view(batch, length, HEADS, HEAD_DIM).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        key, value = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
        at = torch.arange(key.shape[2])
        later = at[None, None, None, :] > position_ids[:, None, :, None]
        attended = F.scaled_dot_product_attention(q, key, value, attn_mask=torch.where(later, -1e4, 0.0))
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, HEADS * HEAD_DIM))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x), key, value


def train(steps: int = 150) -> Decoder:
    """A decoder that knows the sentence by heart."""
    torch.manual_seed(0)
    module = Decoder()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    letters = torch.tensor([LETTERS.index(letter) for letter in TEXT * 4])
    empty = torch.zeros(16, HEADS, 0, HEAD_DIM)
    for _ in range(steps):
        starts = torch.randint(len(TEXT), (16, 1))
        window = letters[starts + torch.arange(65)]
        positions = torch.arange(64).expand(16, -1)
        logits = module(window[:, :-1], positions, empty, empty)[0]
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def export(module: Decoder) -> ir.Model:
    """The decoder as a model whose batch, sequence and past may be of any length."""
    ids, positions = torch.zeros(2, 5, dtype=torch.int64), torch.arange(3, 8).expand(2, -1)
    past = torch.zeros(2, HEADS, 3, HEAD_DIM)
    tokens, cache = {0: "batch", 1: "sequence"}, {0: "batch", 2: "past"}
    model = pg.from_torch(
        module,
        {"input_ids": ids, "position_ids": positions, "past_key": past, "past_value": past},
        dynamic_shapes={"input_ids": tokens, "position_ids": tokens, "past_key": cache, "past_value": cache},
    )
    for output, name in zip(model.graph.outputs, ("logits", "present_key", "present_value"), strict=True):
        output.name = name
    return model


# --8<-- [start:windows]
def make_windows(module: Decoder, number: int = 64) -> dict[str, np.ndarray]:
    """Pieces of text as the model meets them: some letters, and the cache of those before them."""
    letters = torch.tensor([LETTERS.index(letter) for letter in TEXT * 3])
    window = letters[torch.arange(number)[:, None] + torch.arange(48)]
    positions, empty = torch.arange(48).expand(number, -1), torch.zeros(number, HEADS, 0, HEAD_DIM)
    with torch.no_grad():
        _, key, value = module(window[:, :24], positions[:, :24], empty, empty)
    inputs = {"input_ids": window[:, 24:], "position_ids": positions[:, 24:], "past_key": key, "past_value": value}
    return {name: tensor.numpy() for name, tensor in inputs.items()}


# --8<-- [end:windows]


# --8<-- [start:generate]
def generate(model: ir.Model, prompt: str, letters: int) -> tuple[str, int]:
    """What a model goes on with, one letter a run, and how many bytes its cache has in the end."""
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    # How large the cache is, is read from the model: after pruning it has fewer heads.
    shapes = {value.name: value.shape for value in session.get_inputs()}
    key, value = (np.zeros((1, shapes[name][1], 0, shapes[name][3]), np.float32) for name in ("past_key", "past_value"))
    ids, position, text = [LETTERS.index(letter) for letter in prompt], 0, prompt
    for _ in range(letters):
        positions = np.arange(position, position + len(ids))[None]
        feeds = {"input_ids": np.array([ids]), "position_ids": positions, "past_key": key, "past_value": value}
        logits, key, value = session.run(["logits", "present_key", "present_value"], feeds)
        position += len(ids)
        ids = [int(logits[0, -1].argmax())]
        text += LETTERS[ids[0]]
    return text, key.nbytes + value.nbytes


# --8<-- [end:generate]


def main() -> pg.PruneResult:
    """Train, prune heads with their cache, generate with both."""
    module = train()
    model = export(module)
    # --8<-- [start:prune]
    result = pg.prune_graph(
        model,
        {"head": 0.5, "ffn": 0.5},
        scorer="activation",
        data=make_windows(module),
        # Both ends of a cache: what goes in and what comes out is one axis.
        scope=pg.Scope(allow_io=["past_*", "present_*"]),
    )
    # --8<-- [end:prune]
    for name, each in {"original": model, "slim": result.ir_model}.items():
        text, size = generate(each, "the quick", 36)
        print(f"{name:9} {size:7,} bytes of cache | {text}")
    print(f"parameters: {result.report.params[0]:,} -> {result.report.params[1]:,}")
    return result


if __name__ == "__main__":
    main()
