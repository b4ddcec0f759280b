"""One message names everything that a command lacks."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunegraph.errors import MissingExtra
from prunegraph.extras import PACKAGES, require_extras

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
