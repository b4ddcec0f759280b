"""Prune a vision transformer to a latency in milliseconds on this machine.

    python examples/vision_transformer.py [MILLISECONDS]

The model and the images are made up here; with a model of your own, begin at `meet_latency`.  Needs
`prunegraph[torch]`, which only makes the model; pruning an ONNX file needs no torch.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.nn import functional as F

import prunegraph as pg
from prunegraph.bench import compare

IMAGE, PATCH, CLASSES = 32, 4, 4
RUN = {"batch": 1, "threads": 1}  # what the latency is meant for: one image at a time


class Block(nn.Module):
    """Pre-norm attention and MLP with one matrix for queries, keys and values, as in DeiT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.proj(attended)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, blocks, logits."""

    def __init__(self, width: int = 96, heads: int = 6, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (IMAGE // PATCH) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def make_images(number: int, seed: int) -> dict[str, np.ndarray]:
    """Noise with a square that is red, green, blue or white, which is its class."""
    draw = np.random.default_rng(seed)
    images = draw.normal(0, 0.5, (number, 3, IMAGE, IMAGE)).astype(np.float32)
    labels = draw.integers(CLASSES, size=number)
    for image, label in zip(images, labels, strict=True):
        top, left = draw.integers(IMAGE - 12, size=2)
        image[slice(None) if label == 3 else label, top : top + 12, left : left + 12] += 2
    return {"pixel_values": images, "labels": labels}


def train(data: dict[str, np.ndarray], steps: int = 40) -> VisionTransformer:
    """A trained model."""
    torch.manual_seed(0)
    images, labels = torch.from_numpy(data["pixel_values"]), torch.from_numpy(data["labels"])
    module = VisionTransformer()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = torch.randint(len(images), (32,))
        loss = F.cross_entropy(module(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


# --8<-- [start:latency]
def latency(model: ir.Model) -> float:
    """The median in milliseconds of one run on the CPU."""
    return compare([ir.to_proto(model)], rounds=50, **RUN).results[0].median_ms


def meet_latency(model: ir.Model, images: dict[str, np.ndarray], milliseconds: float) -> pg.PruneResult | None:
    """The model pruned to run in so many milliseconds; None where it does already."""
    now = latency(model)
    print(f"now: {now:.2f} ms, wanted: {milliseconds:.2f} ms")
    if now <= milliseconds:
        return None
    # A latency is a speed-up over what there is. What is promised is measured: the original and the slim model run in
    # turn, so that a machine that slows down slows down both.
    amount = pg.Amount(speedup=now / milliseconds, kinds=("head", "ffn"), timing=RUN)
    return pg.prune_graph(model, amount, scorer="activation", data=pg.Data(images, limit=64))


# --8<-- [end:latency]


def main(milliseconds: float | None = None) -> pg.PruneResult | None:
    """Train, prune to a latency (two thirds of what it takes if none is given), evaluate."""
    images = make_images(256, seed=0)
    model = pg.from_torch(train(images), {"pixel_values": torch.from_numpy(images["pixel_values"][:2])})
    result = meet_latency(model, images, milliseconds or latency(model) * 2 / 3)
    if result is None:
        print("it is as fast as that already")
        return None
    for group in result.report.groups:
        print(f"  {group.id:8} {group.before:4} -> {group.after}")
    for score in result.evaluate(make_images(128, seed=1)).scores:
        print(f"accuracy of {score.model}: {score.value:.3f}")
    if result.speed is not None and not result.speed.met.sure:
        print("this machine is too busy to be sure of the latency: measure again when it is quiet")
    return result


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else None)
