"""Real networks as exporters write them, and half of each pruned: what the benchmarks of devices and runtimes run."""

from __future__ import annotations

from pathlib import Path

import prunegraph as pg
from benchmarks.zoo.full_size import FULL
from benchmarks.zoo.model import export

FOLDER = Path("build/edge")
NAMES = {"minilm_l6": "MiniLM-L6", "deit_tiny": "DeiT-Tiny", "mobilenet_v2": "MobileNetV2"}


def pair(name: str, folder: Path = FOLDER) -> tuple[Path, Path]:
    """The files of a model and of its slim version, half of every exact group removed; made where they are not there.

    Args:
        name: One of `NAMES`.
        folder: Where they lie.
    """
    dense, slim = folder / f"{name}.onnx", folder / f"{name}-half.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    if not dense.is_file():
        export(FULL[name](), "dynamo", dense)
    if not slim.is_file():
        pg.prune_graph(dense, 0.5).save(slim)
    return dense, slim
