"""Make a text classifier twice as fast, and see what that costs in accuracy.

    python examples/text_classifier.py [FOLDER]

It trains a small Transformer on sentences that it makes up.  With a classifier of your own, begin at `make_faster`:
all that it needs is the ONNX file, the folder of its tokenizer, and texts.  Needs `prunegraph[text,torch]`.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import onnx_ir as ir
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn import functional as F

import prunegraph as pg

GOOD = "lovely brilliant moving funny warm clever superb charming".split()
BAD = "dull clumsy tedious shallow noisy stale awkward dreadful".split()
FILLER = "the film plot cast music scene was is and with a this very story ending dialogue".split()
Rows = list[dict[str, str | int]]


def make_reviews(number: int, seed: int) -> Rows:
    """Sentences with more good words than bad ones (label 1), or the other way round (label 0)."""
    draw = random.Random(seed)
    rows: Rows = []
    for _ in range(number):
        label = draw.randrange(2)
        words = draw.choices((BAD, GOOD)[label], k=3) + draw.choices((GOOD, BAD)[label], k=1)
        words += draw.choices(FILLER, k=draw.randrange(12, 24))
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def make_tokenizer(folder: Path) -> Tokenizer:
    """One token a word; `tokenizer.json` in the folder is what prunegraph reads."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *GOOD, *BAD, *FILLER])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


class Layer(nn.Module):
    """Attention and a feed-forward block, each added to what came in."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """One layer; the bias keeps padding out of the attention."""
        batch, length, width = x.shape
        q, k, v = (
            project(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.norm1(x + self.out(attended.transpose(1, 2).reshape(batch, length, width)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Classifier(nn.Module):
    """Embeddings, two layers, the mean over words, two logits."""

    def __init__(self, vocabulary: int, width: int = 128, heads: int = 8, ffn: int = 512, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, heads, ffn) for _ in range(layers))
        self.classes = nn.Linear(width, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits; the names of the arguments become those of the model's inputs."""
        mask = attention_mask.to(torch.float32)
        bias = (mask[:, None, None, :] - 1) * 1e4
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x, bias)
        return self.classes((x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))


def train(rows: Rows, tokenizer: Tokenizer, steps: int = 80) -> tuple[Classifier, dict[str, torch.Tensor]]:
    """A trained classifier, and a batch of its inputs to trace it with."""
    torch.manual_seed(0)
    encoded = tokenizer.encode_batch([str(row["text"]) for row in rows])
    ids, masks = (torch.tensor([getattr(e, name) for e in encoded]) for name in ("ids", "attention_mask"))
    labels = torch.tensor([int(row["label"]) for row in rows])
    module = Classifier(tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = torch.randint(len(rows), (32,))
        loss = F.cross_entropy(module(ids[batch], masks[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval(), {"input_ids": ids[:2], "attention_mask": masks[:2]}


# --8<-- [start:faster]
def make_faster(model: ir.Model, texts: Rows, held_out: Rows, tokenizer: Path, speedup: float = 2) -> pg.PruneResult:
    """The classifier, so many times faster on this machine, with its accuracy before and after."""
    result = pg.prune_graph(
        model,
        # Speed is meant at the size that you serve: one text of 64 tokens, one thread.
        pg.Amount(speedup=speedup, timing={"batch": 1, "sequence": 64, "threads": 1}),
        # No label of these is read: they show what the model does, so that what hardly matters goes first, and what
        # stays is re-fitted.
        data=pg.Data(texts, tokenizer=tokenizer, limit=128),
        scorer="activation",
    )
    # Accuracy comes from other texts than those that were looked at.
    evaluation = result.evaluate(pg.Data(held_out, tokenizer=tokenizer))
    for score in evaluation.scores:
        print(f"{evaluation.metric} of {score.model}: {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
    if result.speed is not None:
        ratio = result.speed.met.best.ratio
        print(f"{ratio.median:.2f} times as fast [{ratio.low:.2f}, {ratio.high:.2f}], planned by {result.speed.plan}")
    print(f"parameters: {result.report.params[0]:,} -> {result.report.params[1]:,}")
    return result


# --8<-- [end:faster]


def main(folder: Path, speedup: float = 2) -> pg.PruneResult:
    """Train, prune, evaluate, save."""
    reviews = make_reviews(512, seed=0)
    module, batch = train(reviews, make_tokenizer(folder))
    result = make_faster(pg.from_torch(module, batch), reviews, make_reviews(256, seed=1), folder, speedup)
    print("written:", *(path.name for path in result.save(folder / "slim.onnx")))
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
