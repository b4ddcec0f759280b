"""A small ViT trained on Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT): a real vision task that fits a CPU.

    python -m benchmarks.fashion [--seed 0] [--epochs 3]

The images come from the Debian package `dataset-fashion-mnist`, installed or downloaded with `apt-get download`.
Everything made lies in `build/fashion`: `seed0/model.onnx` and the splits as `.npz` files of model inputs and labels.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from benchmarks.datasets import FASHION, fashion_images
from benchmarks.harness import study_parser
from benchmarks.judge import right
from prunegraph import Data
from prunegraph.export.onnx_file import save


def trained(seed: int = 0, epochs: int = 3, folder: Path = FASHION) -> Path:
    """The trained model as ONNX with a dynamic batch; trained now if it is not there."""
    path = folder / f"seed{seed}" / "model.onnx"
    if not path.is_file():
        data = fashion_images(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(exported(_train(data["train"], seed, epochs)), path)
    return path


def network() -> Any:
    """The ViT, untrained."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=192, depth=5, num_heads=6, mlp_ratio=4
    )


def _train(data: Path, seed: int, epochs: int) -> Any:
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    model = network()
    with np.load(data) as arrays:
        images, labels = torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["label"])
    steps = epochs * (len(labels) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        if step % (len(labels) // 128) == 0:
            order = torch.randperm(len(labels))
        rows = order[(step % (len(labels) // 128)) * 128 :][:128]
        batch = images[rows]
        if torch.rand(()) < 0.5:
            batch = batch.flip(-1)
        loss = torch.nn.functional.cross_entropy(model(batch), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return model.eval()


def exported(model: Any) -> ir.Model:
    """A module as a graph, with a batch that varies."""
    import torch

    from prunegraph.export.torch_module import read_torch

    call = {"x": torch.zeros(2, 1, 28, 28)}
    return read_torch(model, call, {"x": {0: "batch"}})


def rows(split: str, count: int | None = None) -> dict[str, npt.NDArray[Any]]:
    """The first images of a split, called as the model's input is, and their labels."""
    with np.load(fashion_images()[split]) as arrays:
        return {"x": arrays["image"][:count], "label": arrays["label"][:count]}


def main() -> None:
    """Train, export and tell how good it is."""
    parser = study_parser("benchmarks.fashion", __doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    path = trained(arguments.seed, arguments.epochs)
    for name in ("validation", "test"):
        print(f"{path}: {right(path, Data(rows(name), batch_size=200)).mean():.2%} on {name}")


if __name__ == "__main__":
    main()
