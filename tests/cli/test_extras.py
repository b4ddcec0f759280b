"""One message names everything that a command lacks."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.errors import MissingExtra
from prunegraph.extras import PACKAGES, require_extras
from tests.graphs.cli import classifier

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))


def without(*missing: str) -> Callable[..., Any]:
    real = importlib.util.find_spec
    return lambda name, *rest: None if name in missing else real(name, *rest)


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.extras.find_spec", without("tokenizers", "sklearn", "kneed"))
    with pytest.raises(MissingExtra) as error:
        require_extras(["text", "cluster", "report", "text"])
    assert error.value.message == "this needs the packages tokenizers, sklearn, kneed"
    assert error.value.hint == 'pip install "prunegraph[cluster,text]"'


def test_every_extra_of_the_table_is_one_of_the_distribution_and_part_of_all() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(PACKAGES) <= set(extras)
    (everything,) = extras["all"]
    assert set(everything.removeprefix("prunegraph[").removesuffix("]").split(",")) == set(PACKAGES)


TEXTS = [{"text": "the dog saw a cat", "label": 1}]
ROWS = {"x": np.zeros((4, 3), np.float32)}


@pytest.mark.parametrize(
    ("call", "missing", "extras"),
    [
        ({"data": TEXTS, "scorer": "sap"}, ("tokenizers", "spacy"), "syntax,text"),
        (
            {"data": TEXTS, "scorer": "sap", "after": pg.Finetune()},
            ("tokenizers", "spacy", "torch"),
            "syntax,text,torch",
        ),
        (
            {"data": ROWS, "scorer": {"head": "cahp", "ffn": "taylor"}},
            ("sklearn", "torch", "onnxscript"),
            "cluster,torch",
        ),
        ({"data": ROWS, "after": [pg.Repair(), pg.Finetune()]}, ("torch",), "torch"),
    ],
)
def test_a_request_names_all_that_it_lacks_before_the_model_is_read(
    call: dict[str, Any], missing: tuple[str, ...], extras: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunegraph.extras.find_spec", without(*missing))
    with pytest.raises(MissingExtra) as error:
        pg.prune_graph("there is no such file.onnx", 0.5, **call)
    assert set(error.value.package.split(", ")) == set(missing)
    assert error.value.hint == f'pip install "prunegraph[{extras}]"'


@pytest.mark.parametrize("call", [{}, {"data": ROWS}, {"data": ROWS, "scorer": "michel"}])
def test_what_needs_no_extra_asks_for_none(call: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.extras.find_spec", lambda name: None)
    with pytest.raises(pg.ModelError, match="no such file"):
        pg.prune_graph("there is no such file.onnx", 0.5, **call)


def test_the_command_line_names_what_data_and_report_lack_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    (tmp_path / "texts.txt").write_text("a dog")
    monkeypatch.setattr("prunegraph.extras.find_spec", without("tokenizers", "jinja2", "matplotlib"))
    command = ["prune", "model.onnx", "-o", "slim.onnx", "--data", "texts.txt", "--report", "report"]
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 1 and 'pip install "prunegraph[report,text]"' in ran.stderr
    assert not (tmp_path / "slim.onnx").exists()
