"""Model folders, as Hugging Face, Optimum and transformers.js lay them out: read one, write a slim one that loads.

A folder holds `config.json`, tokenizer or preprocessor files, and an ONNX file at `model.onnx` or `onnx/model.onnx`.
What `config.json` says of heads and widths is written anew where all layers are alike; what it cannot say is told.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunegraph.errors import ModelError
from prunegraph.strict_json import parse_json

MODEL_PLACES = ("model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx", "onnx/decoder_model_merged.onnx")
"""Where the ONNX file lies, the first that is there."""

ENCODER = "encoder_model.onnx"
"""The file of the encoder that a decoder reads, as Optimum calls it."""

LEFT_OUT = (".onnx", ".data", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx_data")
"""Files with weights of the whole model: they are no part of a slim folder."""

CONFIG_KEYS: Mapping[str, tuple[str, ...]] = {
    "head": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "kv_group": ("num_key_value_heads", "n_head_kv", "num_kv_heads"),
    "ffn": ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"),
    "qk_dim": ("head_dim", "head_size"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "expert": ("num_local_experts", "n_routed_experts", "num_experts"),
}
"""By kind of group, the keys under which configurations of `transformers` state how many units a layer has."""

KINDS_STATED = (*CONFIG_KEYS, "query_head", "v_dim")
"""Kinds whose number a reader of a configuration relies on: readers divide the width by the heads, for instance."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One group of a model and what is left of it: `kind`, units before and after."""

    kind: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class SlimConfig:
    """A configuration written anew.

    Attributes:
        config: What `config.json` shall hold.
        changed: The keys that say something else now.
        uneven: Kinds whose layers differ, so that one number cannot say what they have, with what they have.
        unsaid: Kinds that got smaller alike in all layers, but for which the configuration has no number, with what
            is left.
        file: The name of the file that says it.
    """

    config: Mapping[str, Any]
    changed: tuple[str, ...]
    uneven: Mapping[str, tuple[int, ...]]
    unsaid: Mapping[str, int] = field(default_factory=dict)
    file: str = "config.json"


def find_model(folder: Path) -> Path:
    """The ONNX file of a model folder.

    Raises:
        ModelError: there is none, or several and none at a usual place.
    """
    for place in MODEL_PLACES:
        if (folder / place).is_file():
            return folder / place
    files = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(str(path.relative_to(folder)) for path in files)
        raise ModelError(f"{folder} holds several ONNX files: {names}", hint="name the one that you mean")
    if (folder / "config.json").is_file():
        hint = f"export it first: prunegraph export hf:{folder} -o model.onnx"
        raise ModelError(f"{folder} holds a model that is no ONNX file yet", hint=hint)
    raise ModelError(f"{folder} holds no ONNX file", hint="give the folder that Optimum or save_pretrained wrote")


def lacks_onnx(folder: Path) -> bool:
    """Whether a folder holds a model of transformers that was never exported."""
    return (folder / "config.json").is_file() and not [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]


def read_config(folder: Path) -> dict[str, Any] | None:
    """What `config.json` of a folder holds; None if there is none.

    Raises:
        ModelError: it is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no JSON object", hint="repair it, or give the ONNX file alone")
    return config


def read_json(path: Path) -> Any:
    """What a JSON file of a model folder states.

    Raises:
        ModelError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="repair it, or give the ONNX file alone") from error


def class_numbers(config: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of classes by name, as `label2id` or `id2label` state them.

    >>> class_numbers({"id2label": {"0": "bad", "1": "good"}})
    {'bad': 0, 'good': 1}
    """
    by_name, by_number = config.get("label2id"), config.get("id2label")
    if isinstance(by_name, dict) and by_name:
        return {str(name): number for name, number in by_name.items() if isinstance(number, int)}
    if isinstance(by_number, dict):
        return {str(name): int(number) for number, name in by_number.items() if str(number).isdecimal()}
    return {}


def slim_config(config: Mapping[str, Any], cuts: Iterable[Cut]) -> SlimConfig:
    """What a configuration has to say of a slim model.

    A key is written anew where it states what every layer of a kind had, and every layer has the same number now.

    Args:
        config: What `config.json` holds; it is not changed.
        cuts: Every group of the model, whole ones too.
    """
    before: dict[str, set[int]] = {}
    after: dict[str, list[int]] = {}
    for cut in cuts:
        before.setdefault(cut.kind, set()).add(cut.before)
        after.setdefault(cut.kind, []).append(cut.after)
    new, uneven, unsaid = dict(config), {}, {}
    for kind, left in after.items():
        if len(set(left)) > 1:
            uneven[kind] = tuple(left)
        elif before[kind] != {left[0]} and len(before[kind]) == 1:
            (units,) = before[kind]
            keys = CONFIG_KEYS.get(kind, ())
            if kind == "head" and "kv_group" not in after:  # every head has keys and values of its own
                keys += CONFIG_KEYS["kv_group"]
            numbers = {key: config.get(key) for key in keys}
            new_numbers = {key: left[0] for key, number in numbers.items() if number == units}
            if kind == "qk_dim":  # rotary positions turn pairs, and fused ops take eight at a time
                new_numbers |= {
                    key: number // units * left[0]
                    for key, number in numbers.items()
                    if isinstance(number, int) and number and number % units == 0
                }
            new |= new_numbers
            if not new_numbers and kind in KINDS_STATED:
                unsaid[kind] = left[0]
    values = set(after.get("v_dim", ()))  # one number is for queries, keys and values
    if values == {new.get("head_dim")}:
        unsaid.pop("v_dim", None)
    elif len(values) == 1 and new.get("head_dim") != config.get("head_dim"):
        unsaid["v_dim"] = min(values)
    unsaid |= _query_heads(new, config, before, after, unsaid)
    changed = tuple(key for key in config if new[key] != config[key])
    return SlimConfig(new, changed, uneven, {kind: number for kind, number in unsaid.items() if number >= 0})


def _query_heads(
    new: dict[str, Any],
    config: Mapping[str, Any],
    before: Mapping[str, set[int]],
    after: Mapping[str, Sequence[int]],
    unsaid: Mapping[str, int],
) -> dict[str, int]:
    """Where queries share keys, the number of heads is that of groups times that of queries in each; written in place.

    Returns:
        -1 for kinds that are said by that.
    """
    kinds = ("kv_group", "query_head")
    if not all(kind in before and len(before[kind]) == 1 and len(set(after[kind])) == 1 for kind in kinds):
        return {}
    had, left = (math.prod(each) for each in ([min(before[k]) for k in kinds], [after[k][0] for k in kinds]))
    keys = [key for key in CONFIG_KEYS["head"] if config.get(key) == had]
    new |= dict.fromkeys(keys, left)
    return dict.fromkeys(set(unsaid) & {"query_head"}, -1) if keys else {}


def companions(folder: Path, model: Path) -> list[Path]:
    """Files of a model folder that a slim one needs too: configuration, tokenizer, preprocessor, vocabulary.

    Modules that `modules.json` names come with their weights, and so does the encoder that a decoder reads.

    Args:
        folder: The folder.
        model: Its ONNX file, which is left out with its data, as are weights in other formats.

    Raises:
        ModelError: the encoder lacks its data.
    """
    skip = {model.resolve()}
    beside = [
        path
        for path in folder.iterdir()
        if path.is_file() and path.resolve() not in skip and not path.name.endswith(LEFT_OUT) and path.name[0] != "."
    ]
    return sorted([*beside, *_later_modules(folder), *_encoder_files(model)])


def _encoder_files(model: Path) -> list[Path]:
    """The encoder beside a decoder, a model of its own that is not changed, and its data."""
    encoder = model.with_name(ENCODER)
    if not model.name.startswith("decoder") or not encoder.is_file():
        return []
    from prunegraph.export.onnx_file import data_names, load

    load(encoder)  # refuses data that are missing, or lie elsewhere
    return [encoder, *(encoder.with_name(name) for name in sorted(data_names(encoder)))]


def _later_modules(folder: Path) -> list[Path]:
    """Files of what sentence-transformers runs after the model, such as `1_Pooling`, weights of theirs included."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    stated = read_json(path)
    names = [module.get("path") for module in stated if isinstance(module, dict)] if isinstance(stated, list) else []
    inside = [folder / name for name in names if isinstance(name, str) and name and Path(name).name == name]
    return [file for each in inside if each.is_dir() for file in each.iterdir() if file.is_file()]


def write_companions(source: Path, model: Path, target: Path, config: Mapping[str, Any] | None, card: str) -> None:
    """Lay out a slim folder around its ONNX file.

    Args:
        source: The folder that the model came from; it is not changed.
        model: Its ONNX file.
        target: The slim folder, see `new_folder`.
        config: What `config.json` shall hold; as it was if None.
        card: The text of `README.md`.
    """
    target.mkdir(exist_ok=True)
    for path in companions(source, model):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    (target / "README.md").write_text(card, encoding="utf-8")
    if config is not None:
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")


def model_card(name: str, facts: str, slim: SlimConfig) -> str:
    """The README of a slim folder: what it was made of, the measured figures, and what its config cannot say.

    Args:
        name: Of the model it was made of.
        facts: The report in Markdown, see `prunegraph.export.report`.
        slim: What its `config.json` says and cannot say.
    """
    lines = [
        "---",
        "library_name: onnx",
        "tags: [pruned, onnx]",
        "---",
        "",
        f"This is {name}, made smaller.",
        "",
        facts,
    ]
    if slim.uneven or slim.unsaid:
        lines += [f"## What {slim.file} cannot say", ""]
        lines += [f"- {kind}: the layers have {', '.join(map(str, left))}" for kind, left in slim.uneven.items()]
        lines += [f"- {kind}: every layer has {number}" for kind, number in slim.unsaid.items()]
        lines += ["", "ONNX Runtime needs none of these numbers; a library that builds caches from them does."]
    return "\n".join(lines) + "\n"
