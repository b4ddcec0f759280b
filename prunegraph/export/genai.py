"""Folders of ONNX Runtime GenAI: what `genai_config.json` says of heads and caches, written anew for a slim model.

The runtime makes key-value caches from these numbers, one for all layers: layers that differ cannot be said.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunegraph.errors import ModelError, PruneGraphError
from prunegraph.export.folder import Cut, SlimConfig, read_json, slim_config

NAME = "genai_config.json"

LAYERS = "num_hidden_layers"

STATED = ("head", "kv_group", "query_head", "qk_dim", "v_dim", "hidden")
"""Kinds whose number the runtime makes caches with, or is told of."""


def read_genai_config(folder: Path) -> dict[str, Any] | None:
    """What `genai_config.json` of a folder holds; None if there is none.

    Raises:
        ModelError: it is no JSON object, or says nothing of a decoder.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(_decoder(config), dict):
        raise ModelError(f"{path} says nothing of a decoder", hint="give the ONNX file alone")
    return config


def _decoder(config: Mapping[str, Any]) -> Any:
    model = config.get("model")
    return model.get("decoder") if isinstance(model, dict) else None


def decoder_file(folder: Path, config: Mapping[str, Any]) -> Path | None:
    """The ONNX file that a configuration names; None if it is not there."""
    name = _decoder(config).get("filename")
    path = folder / name if isinstance(name, str) and Path(name).name == name else None
    return path if path is not None and path.is_file() else None


def slim_genai_config(config: Mapping[str, Any], cuts: Iterable[Cut], inputs: Collection[str]) -> SlimConfig:
    """What `genai_config.json` has to say of a slim model.

    Args:
        config: What it holds; it is not changed.
        cuts: Every group of the model, whole ones too; those of which nothing is left say nothing of the others.
        inputs: The names of the inputs that are left.

    Raises:
        PruneGraphError: the layers differ in what the runtime takes one number for, or no cache is left.
    """
    decoder, cuts = _decoder(config), list(cuts)
    slim = slim_config(decoder, [cut for cut in cuts if cut.kind in STATED and cut.after])
    if slim.uneven:
        kind, left = next(iter(slim.uneven.items()))
        raise PruneGraphError(
            f"{NAME} has one number for all layers, and the layers keep {min(left)} to {max(left)} of {kind}",
            hint="--uniform lets all layers keep equally many; give the ONNX file alone to leave them uneven",
        )
    if slim.unsaid:
        kind, number = next(iter(slim.unsaid.items()))
        raise PruneGraphError(
            f"{NAME} has no number for {kind}, of which every layer would have {number}",
            hint=f"leave it whole (--exclude '{kind}.*'), or give the ONNX file alone",
        )
    if not all(cut.after for cut in cuts):
        slim = _with_layers(slim, inputs)
    return replace(slim, config={**config, "model": {**config["model"], "decoder": slim.config}}, file=NAME)


def _with_layers(slim: SlimConfig, inputs: Collection[str]) -> SlimConfig:
    """The number of layers up to the last one that has a cache; the runtime looks which of them have one.

    Raises:
        PruneGraphError: none has.
    """
    number, names = slim.config.get(LAYERS), slim.config.get("inputs")
    pattern = names.get("past_key_names") if isinstance(names, dict) else None
    if not isinstance(number, int) or not isinstance(pattern, str) or "%d" not in pattern:
        return slim
    cached = [layer for layer in range(number) if pattern.replace("%d", str(layer)) in inputs]
    if not cached:
        hint = "leave one attention, or give the ONNX file alone"
        raise PruneGraphError(f"no layer of {NAME} has a cache any more, and the runtime makes one", hint=hint)
    layers = cached[-1] + 1
    changed = () if layers == number else (LAYERS,)
    return replace(slim, config={**slim.config, LAYERS: layers}, changed=(*slim.changed, *changed))


def write_genai_config(folder: Path, slim: SlimConfig, model_name: str) -> None:
    """Write `genai_config.json` into a slim folder.

    Args:
        folder: The slim folder.
        slim: What it says.
        model_name: The name of the ONNX file.
    """
    decoder = {**_decoder(slim.config), "filename": model_name}
    config = {**slim.config, "model": {**slim.config["model"], "decoder": decoder}}
    (folder / NAME).write_text(json.dumps(config, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
