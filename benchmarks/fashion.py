"""A small ViT trained on Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT): a real vision task that fits a CPU.

    python -m benchmarks.fashion [--seed 0] [--epochs 3]

The images come from the Debian package `dataset-fashion-mnist`, installed or downloaded with `apt-get download`.
Everything made lies in `build/fashion`: `seed0/model.onnx` and the splits as `.npz` files of model inputs and labels.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

FOLDER = Path("build/fashion")
PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("usr/share/datasets/fashion-mnist")
SPLITS = {"train": ("train", 0, 55_000), "validation": ("train", 55_000, 60_000), "test": ("t10k", 0, 10_000)}
MEAN, STD = 0.2860, 0.3530


def splits(folder: Path = FOLDER) -> dict[str, Path]:
    """The three splits, each with `image` `[n, 1, 28, 28]` in float32 and `label` `[n]`."""
    paths = {name: folder / f"{name}.npz" for name in SPLITS}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as unpacked:
            source = _source(Path(unpacked))
            for name, (file, start, stop) in SPLITS.items():
                images = _idx(source / f"{file}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[start:stop]
                labels = _idx(source / f"{file}-labels-idx1-ubyte.gz", 8)[start:stop]
                image = ((images / np.float32(255) - MEAN) / STD).astype(np.float32)
                np.savez(folder / f"{name}.part.npz", image=image, label=labels.astype(np.int64))
                os.replace(folder / f"{name}.part.npz", paths[name])
    return paths


def _source(unpacked: Path) -> Path:
    if (Path("/") / INSTALLED).is_dir():
        return Path("/") / INSTALLED
    try:
        subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=unpacked, check=True, stderr=subprocess.DEVNULL)
        (package,) = unpacked.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    except (OSError, subprocess.CalledProcessError, ValueError):
        sys.exit(f"the images are not there\n\nhint: install the Debian package {PACKAGE}, or run this on Debian")
    return unpacked / INSTALLED


def _idx(path: Path, header: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)


def trained(seed: int = 0, epochs: int = 3, folder: Path = FOLDER) -> Path:
    """The trained model as ONNX with a dynamic batch; trained now if it is not there."""
    path = folder / f"seed{seed}" / "model.onnx"
    if not path.is_file():
        data = splits(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        _export(_train(data["train"], seed, epochs), path)
    return path


def _train(data: Path, seed: int, epochs: int) -> Any:
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    model = VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=192, depth=5, num_heads=6, mlp_ratio=4
    )
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


def _export(model: Any, path: Path) -> None:
    import torch

    from prunegraph.export.onnx_file import save
    from prunegraph.export.torch_module import read_torch

    call = {"x": torch.zeros(2, 1, 28, 28)}
    save(read_torch(model, call, {"x": {0: "batch"}}), path)


def accuracy(model: Path | bytes, data: Path, name: str = "image") -> npt.NDArray[np.bool_]:
    """Whether each example is classified rightly, in the order of the file."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    with np.load(data) as arrays:
        images, labels = arrays[name], arrays["label"]
    chunks = range(0, len(labels), 200)
    found = [session.run(None, {given.name: images[k : k + 200]})[0].argmax(axis=-1) for k in chunks]
    return np.asarray(np.concatenate(found) == labels)


def main() -> None:
    """Train, export and tell how good it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    path = trained(arguments.seed, arguments.epochs)
    for name in ("validation", "test"):
        print(f"{path}: {accuracy(path, splits()[name]).mean():.2%} on {name}")


if __name__ == "__main__":
    main()
