"""Model folders in, model folders out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.test_bad_files import refused
from tests.cli.test_cli import done, files, folder
from tests.graphs.cli import FFN, HEADS, HIDDEN, classifier

pytestmark = pytest.mark.slow

__all__ = ["folder"]

CONFIG = {"num_attention_heads": HEADS, "intermediate_size": FFN, "hidden_size": HIDDEN, "model_type": "bert"}
HALF = ("--ratio", "head=0.5", "--ratio", "ffn=0.5", "--align", "1")


def model_folder(where: Path, model: str = "onnx/model.onnx") -> Path:
    (where / model).parent.mkdir(parents=True)
    onnx.save(classifier(), where / model)
    (where / "config.json").write_text(json.dumps(CONFIG))
    (where / "tokenizer.json").write_text("{}")
    (where / "model.safetensors").write_text("weights")
    return where


def left(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


@pytest.mark.parametrize("model", ["onnx/model.onnx", "model.onnx"])
def test_a_folder_becomes_a_slim_folder(folder: Path, model: str) -> None:
    source = model_folder(folder / "bert", model)
    before = files(source)
    result = done("prune", "bert", "-o", "deep/slim", *HALF)
    written = {"config.json", "tokenizer.json", "README.md", model, f"{model.removesuffix('.onnx')}.plan.json"}
    assert set(files(folder / "deep/slim")) == written and files(source) == before
    assert left(folder / "deep/slim") == CONFIG | {"num_attention_heads": HEADS // 2, "intermediate_size": FFN // 2}
    assert "num_attention_heads = 1" in result.stdout and f"deep/slim/{model}" in result.stderr
    card = (folder / "deep/slim/README.md").read_text()
    assert card.startswith("---\n") and "# bert" in card and "file, bytes" in card
    done("verify", f"bert/{model}", f"deep/slim/{model}")
    for command in (("verify",), ("bench", "--rounds", "6"), ("report", "-o", "r.md", "--no-profile")):
        done(command[0], "bert", "deep/slim", *command[1:])
    assert done("explain", "deep/slim").stdout


def test_what_a_config_cannot_say_is_told(folder: Path) -> None:
    model_folder(folder / "bert")
    result = done("prune", "bert", "-o", "slim", "--keep", f"ffn={FFN},{FFN // 2}")
    assert left(folder / "slim") == CONFIG
    assert f"how many ffn there are: {FFN // 2} to {FFN} by layer" in " ".join(result.stdout.split())
    assert "--uniform evens them" in result.stdout and f"{FFN}, {FFN // 2}" in (folder / "slim/README.md").read_text()
    result = done("prune", "bert", "-o", "even", "--ratio", "ffn=0.5", "--rank", "global", "--uniform")
    assert left(folder / "even")["intermediate_size"] == FFN // 2 and "cannot say" not in result.stdout


def test_a_folder_without_onnx_is_exported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_model(address: str, output: Path, **_: object) -> None:
        assert address == "hf:bert"
        onnx.save(classifier(), output)

    monkeypatch.setattr("prunegraph.export.hub.export_model", export_model)
    (model_folder(folder / "bert") / "onnx/model.onnx").unlink()
    for given, slim in (("bert", "a"), ("hf:bert", "b")):
        done("prune", given, "-o", slim, *HALF)
        assert (folder / slim / "onnx/model.onnx").is_file() and left(folder / slim)["num_attention_heads"] == 1


def test_what_is_refused(folder: Path) -> None:
    source = model_folder(folder / "bert")
    refused(("prune", "bert", "-o", "bert", *HALF), 1, "bert exists already", "new folder")
    (folder / "empty").mkdir()
    refused(("prune", "empty", "-o", "slim"), 1, "holds no ONNX file")
    refused(("explain", "empty"), 1, "empty is a folder", ".onnx")
    (source / "onnx/model.onnx").unlink()
    for name in ("bert", "bert/model.safetensors"):
        refused(("explain", name), 1, name, "prunegraph export hf:bert -o model.onnx")
    (source / "onnx/model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (source / "config.json").write_text("{")
    refused(("prune", "bert", "-o", "slim", *HALF), 1, "config.json cannot be read")
    assert not (folder / "slim").exists()
