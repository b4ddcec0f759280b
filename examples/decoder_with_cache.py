"""Prune a decoder together with its key-value cache, and generate with what is left.

    python examples/decoder_with_cache.py [FOLDER]

A cache is an input and an output of the model, and those stay as they are unless you say otherwise: whoever runs the
model has to make a smaller cache then.  A folder of ONNX Runtime GenAI says how large it is, and a slim folder says it
anew.  The model is made and trained here.  Needs `prunegraph[torch]`, and generates by `onnxruntime-genai` where that
is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional as F

import prunegraph as pg

TEXT = "the quick brown fox jumps over the lazy dog. "
END = "\n"  # what would end a text; this one has no end
LETTERS = [END, *sorted(set(TEXT))]
WIDTH, HEADS, HEAD_DIM, FFN, CONTEXT = 64, 8, 8, 256, 512
PAST, PRESENT = (tuple(f"{name}.0.{part}" for part in ("key", "value")) for name in ("past_key_values", "present"))
PROMPT, LENGTH = "the quick", 36


class Decoder(nn.Module):
    """One decoder layer: letters in, logits of the next letter and a longer cache out."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.positions = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(CONTEXT, WIDTH)
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
    names = [*model.graph.inputs[2:], *model.graph.outputs]
    for value, name in zip(names, (*PAST, "logits", *PRESENT), strict=True):
        value.name = name
    return model


# --8<-- [start:windows]
def make_windows(module: Decoder, number: int = 64) -> dict[str, np.ndarray]:
    """Pieces of text as the model meets them: some letters, and the cache of those before them."""
    letters = torch.tensor([LETTERS.index(letter) for letter in TEXT * 3])
    window = letters[torch.arange(number)[:, None] + torch.arange(48)]
    positions, empty = torch.arange(48).expand(number, -1), torch.zeros(number, HEADS, 0, HEAD_DIM)
    with torch.no_grad():
        _, key, value = module(window[:, :24], positions[:, :24], empty, empty)
    inputs = {"input_ids": window[:, 24:], "position_ids": positions[:, 24:], PAST[0]: key, PAST[1]: value}
    return {name: tensor.numpy() for name, tensor in inputs.items()}


# --8<-- [end:windows]


# --8<-- [start:generate]
def generate(model: ir.Model, prompt: str, letters: int) -> tuple[str, int]:
    """What a model goes on with, one letter a run, and how many bytes its cache has in the end."""
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    # How large the cache is, is read from the model: after pruning it has fewer heads.
    shapes = {value.name: value.shape for value in session.get_inputs()}
    cache = {name: np.zeros((1, shapes[name][1], 0, shapes[name][3]), np.float32) for name in PAST}
    ids, position, text = [LETTERS.index(letter) for letter in prompt], 0, prompt
    for _ in range(letters):
        positions = np.arange(position, position + len(ids))[None]
        feeds = {"input_ids": np.array([ids]), "position_ids": positions, **cache}
        logits, *grown = session.run(["logits", *PRESENT], feeds)
        cache = dict(zip(PAST, grown, strict=True))
        position += len(ids)
        ids = [int(logits[0, -1].argmax())]
        text += LETTERS[ids[0]]
    return text, sum(each.nbytes for each in cache.values())


# --8<-- [end:generate]


# --8<-- [start:folder]
def save_folder(model: ir.Model, folder: Path) -> Path:
    """A folder that ONNX Runtime GenAI loads: the model, and what its caches are called and how large they are."""
    folder.mkdir(parents=True)
    ir.save(model, folder / "model.onnx")
    decoder = {
        "filename": "model.onnx",
        "hidden_size": WIDTH,
        "head_size": HEAD_DIM,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": 1,
        "inputs": {
            "input_ids": "input_ids",
            "position_ids": "position_ids",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    end = LETTERS.index(END)
    tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "vocab_size": len(LETTERS)}
    config = {
        "model": {"type": "llama", "context_length": CONTEXT, **tokens, "decoder": decoder},
        "search": {"do_sample": False, "max_length": CONTEXT, "past_present_share_buffer": False},
    }
    (folder / "genai_config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
    return folder


def prune_folder(folder: Path, slim: Path, windows: dict[str, np.ndarray]) -> Path:
    """A slim folder: its `genai_config.json` says how many heads the caches have now."""
    data = folder.with_name("windows.npz")
    np.savez(data, **windows)
    freed = [f"--allow-io={pattern}" for pattern in ("past_key_values.*", "present.*")]
    ratios = ["--ratio", "head=0.5", "--ratio", "ffn=0.5", "--data", str(data)]
    command = [sys.executable, "-m", "prunegraph", "prune", str(folder), "-o", str(slim), *ratios, *freed]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return slim


def generate_by_genai(folder: Path, prompt: str, letters: int) -> str:
    """What ONNX Runtime GenAI goes on with, greedily; it makes the caches from what the folder says."""
    import onnxruntime_genai as genai

    model = genai.Model(str(folder))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + letters)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([[LETTERS.index(letter) for letter in prompt]], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return "".join(LETTERS[token] for token in generator.get_sequence(0))


# --8<-- [end:folder]


def main(folder: Path) -> pg.PruneResult:
    """Train, prune heads with their cache, generate with both; then the same as a folder."""
    module = train()
    model, windows = export(module), make_windows(module)
    # --8<-- [start:prune]
    result = pg.prune_graph(
        model,
        {"head": 0.5, "ffn": 0.5},
        data=windows,
        # Both ends of a cache: what goes in and what comes out is one axis.
        scope=pg.Scope(allow_io=["past_key_values.*", "present.*"]),
    )
    # --8<-- [end:prune]
    for name, each in {"original": model, "slim": result.ir_model}.items():
        text, size = generate(each, PROMPT, LENGTH)
        print(f"{name:9} {size:7,} bytes of cache | {text}")
    print(f"parameters: {result.report.params[0]:,} -> {result.report.params[1]:,}")
    slim = prune_folder(save_folder(model, folder / "whole"), folder / "slim", windows)
    try:
        print(f"by GenAI from {slim.name:15} | {generate_by_genai(slim, PROMPT, LENGTH)}")
    except ImportError:
        print(f"onnxruntime-genai is not installed | {generate(ir.load(slim / 'model.onnx'), PROMPT, LENGTH)[0]}")
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
