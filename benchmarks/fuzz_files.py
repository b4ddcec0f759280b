"""What commands read besides models, damaged: plans, ratio files, data, tokenizers, caches; and odd command lines."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzz_models import mlp
from benchmarks.fuzz_mutants import LENGTHS, NAMES, damaged


def reader() -> onnx.ModelProto:
    """A model of texts whose tokens are numbered by `TOKENIZER`."""
    model = mlp()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", 4]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 6), "f4"), "words"))
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["e"]),
        helper.make_node("ReduceMax", ["e"], ["x"], axes=[1], keepdims=0),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    return model


Prepare = Callable[[Path, random.Random], list[str]]
"""Writes files into a folder with `mlp.onnx`, `text.onnx`, `slim.onnx` and `slim.plan.json`; the arguments to run."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "0.5", [], {}, [[]], 0.5, 1e308, -0.5, float("nan"), float("inf"), *LENGTHS),
    *("ffn", ["ffn"], {"ffn": 1}, [0.5, "a"], 1 << 70),
)
TOKENIZER = {
    **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None},
    **{"pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None},
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
}
PRUNE = ["prune", "mlp.onnx", "-o", "out.onnx"]
READ = ["prune", "text.onnx", "-o", "out.onnx", "--scorer", "activation", "--tokenizer", "tokenizer.json", "--data"]


def plan(folder: Path, draw: random.Random) -> list[str]:
    """A plan with another value somewhere."""
    _json(folder / "plan.json", json.loads((folder / "slim.plan.json").read_text()), draw)
    return ["verify", "mlp.onnx", "slim.onnx", "--plan", "plan.json"]


def ratios(folder: Path, draw: random.Random) -> list[str]:
    """A ratio file with another value somewhere."""
    known = ({"ffn": 0.5, "hidden": 0.25}, {"ratio": 0.5, "keep": {"ffn": 4}, "fits": {"ffn": [16]}}, {"ffn": [0.5]})
    suffix = draw.choice((".json", ".json", ".yaml"))
    _json(folder / f"ratio{suffix}", draw.choice(known), draw)
    return [*PRUNE, "--ratio", f"ratio{suffix}"]


def rows(folder: Path, draw: random.Random) -> list[str]:
    """A table or lines, with values that fit neither the model nor each other."""
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    suffix = draw.choice((".txt", ".csv", ".tsv", ".jsonl", ".conllu"))
    if suffix == ".jsonl":
        objects: list[Any] = [{"text": "a b", "label": 1}, {"text": "b", "label": 0}]
        text = "\n".join(json.dumps(_replaced(each, draw)) for each in objects)
    elif suffix == ".conllu":
        columns = ["1", "a", "_", "_", "_", "_", "0", "root", "_", "_"]
        columns[draw.randrange(10)] = str(draw.choice(VALUES))
        text = "\t".join(columns) + "\n\n"
    else:
        mark = {".csv": ",", ".tsv": "\t"}.get(suffix, " ")
        text = "\n".join(mark.join(map(str, row)) for row in (("text", "label"), ("a b", draw.choice(VALUES)), ("b",)))
    content = text.encode(draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")), "surrogatepass")
    (folder / f"data{suffix}").write_bytes(damaged(content, draw) if draw.random() < 0.5 else content)
    return [*READ, f"data{suffix}"]


def arrays(folder: Path, draw: random.Random) -> list[str]:
    """An archive with arrays of other shapes, types and names, or a damaged one."""
    numbers = np.random.default_rng(0).standard_normal((8, 6)).astype(draw.choice(("f4", "f4", "f8", "i4", "f2")))
    given: dict[str, Any] = {draw.choice(("x", "x", "x", "z", "é")): numbers}
    if draw.random() < 0.5:
        given["labels"] = draw.choice(
            (np.arange(8), np.full(8, np.nan), np.arange(3), np.array(["a"] * 8), np.array(1))
        )
    if draw.random() < 0.3:
        given["x"] = draw.choice(
            (numbers[:, :3], numbers[0], numbers[None], numbers[:0], np.array(["a"]), numbers * np.nan)
        )
    target = io.BytesIO()
    draw.choice((np.savez, np.savez_compressed))(target, **given)
    content = target.getvalue()
    (folder / "data.npz").write_bytes(damaged(content, draw) if draw.random() < 0.5 else content)
    return [*PRUNE, "--scorer", "activation", "--data", "data.npz"]


def tokenizer(folder: Path, draw: random.Random) -> list[str]:
    """A tokenizer, or what lies beside it, with another value somewhere."""
    (folder / "data.txt").write_text("a b\nb\n")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    if draw.random() < 0.7:
        _json(folder / "tokenizer.json", TOKENIZER, draw)
    else:
        _json(folder / "tokenizer_config.json", {"pad_token": "a", "padding_side": "left"}, draw)
    return [*READ, "data.txt"]


def gather(folder: Path) -> list[str]:
    """Observations that `cache` damages; data as they are."""
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((8, 6)).astype("f4"))
    return [*PRUNE, "--scorer", "activation", "--data", "data.npz"]


def examples(model: onnx.ModelProto, path: Path) -> None:
    """Labelled examples that fit the whole model, of which a mutant is made."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {"labels": np.arange(8) % 3}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [8, *(dim.dim_value or 5 for dim in kind.shape.dim[1:])]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        numbers = draw.standard_normal(shape) if np.issubdtype(dtype, np.floating) else draw.integers(0, 2, shape)
        arrays[value.name] = numbers.astype(str if kind.elem_type == TensorProto.STRING else dtype)
    np.savez(path, **arrays)


def cache(folder: Path, draw: random.Random) -> list[str]:
    """Observations that were gathered before, damaged since."""
    for path in folder.glob("cache/**/*.npz"):
        path.write_bytes(damaged(path.read_bytes(), draw))
    return gather(folder)


def command_line(_: Path, draw: random.Random) -> list[str]:
    """Options with odd values, or that do not go together."""
    words = (
        "explain", "prune", "verify", "score", "bench", "finetune",
        "--ratio", "--keep", "--budget", "--kind", "--align", "--scorer", "--scorer-option", "--data", "--tokenizer",
        "--include", "--exclude", "--drop", "--allow-io", "--report", "-o", "--json", "-v", "--samples", "--repair",
        "--seed", "--plan", "--layer-threshold", "--help",
        "mlp.onnx", "slim.onnx", "out.onnx", "slim.plan.json", ".", "/dev/null", "none/x.onnx", "x" * 300,
        "\udcff.onnx", "0.5", "nan", "-1", "1e400", "ffn=0.5", "ffn=3", "macs=0.5", "ffn", "ffn.*", "[", "=", "",
        *NAMES,
    )  # fmt: skip
    start = draw.choice(
        (["explain", "mlp.onnx"], list(PRUNE), ["verify", "mlp.onnx", "slim.onnx"], ["score", "mlp.onnx"], [])
    )
    return [*start, *(draw.choice(words) for _ in range(draw.randrange(5)))]


FILES: tuple[Prepare, ...] = (plan, ratios, rows, arrays, tokenizer, cache, command_line)


def _json(path: Path, value: Any, draw: random.Random) -> None:
    """Write a JSON text with another value somewhere, damaged, or nested without end."""
    text = json.dumps(_replaced(value, draw))
    match draw.randrange(10):
        case 0:
            text = "[" * draw.choice((900, 200_000))
        case 1:
            text = '{"a":' * 5000
    content = text.encode()
    path.write_bytes(damaged(content, draw) if draw.random() < 0.3 else content)


def _replaced(value: Any, draw: random.Random) -> Any:
    """The value with one of its parts replaced, added, left out or doubled."""
    if draw.random() < 0.3 or not isinstance(value, (dict, list)) or not value:
        return draw.choice(VALUES)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        added = [value[place]] if draw.random() < 0.3 else []
        return [*value[:place], *added, _replaced(value[place], draw), *value[place + 1 :]]
    name = draw.choice(list(value))
    match draw.randrange(5):
        case 0:
            return {key: entry for key, entry in value.items() if key != name}
        case 1:
            return {**value, draw.choice(NAMES): draw.choice(VALUES)}
        case _:
            return {**value, name: _replaced(value[name], draw)}
