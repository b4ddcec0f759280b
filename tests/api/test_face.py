"""The face of the package: what it exports, what it still accepts, what its errors show."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import prunegraph as pg
from prunegraph import Amount, Scope, analyze, prune_graph
from prunegraph.errors import UsageError
from prunegraph.moved import MOVED
from tests.graphs.cli import classifier


@pytest.mark.parametrize("old", MOVED)
def test_an_old_import_path_gives_the_module_that_has_moved(old: str) -> None:
    name, new = f"prunegraph.{old}", f"prunegraph.{MOVED[old]}"
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=f"{name} is now {new}$"):
        module = importlib.import_module(name)
    assert module is importlib.import_module(new) and module.__spec__.name == new


def test_a_module_below_a_moved_package_is_the_same_module() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    with pytest.warns(DeprecationWarning):
        from prunegraph.export.to_torch.build import build
    from prunegraph.torch_twin.build import build as now

    assert build is now


def test_a_traceback_shows_the_hint() -> None:
    with pytest.raises(UsageError) as caught:
        raise UsageError("there is no group 'head.9'", hint="`prunegraph explain` lists the groups")
    text = "".join(traceback.format_exception(caught.value))
    assert text.endswith("there is no group 'head.9'\nhint: `prunegraph explain` lists the groups\n")


@pytest.mark.parametrize(
    "part, pattern",
    [
        (lambda names: {"scope": Scope(exclude=names)}, "ffn.0"),
        (lambda names: {"scope": Scope(include=names)}, "ffn.1"),
        (lambda names: {"amount": Amount(kinds=names)}, "ffn"),
        (lambda names: {"amount": Amount(drop=names)}, "ffn.1"),
    ],
)
def test_a_plain_string_is_one_pattern(part: Callable[[str | list[str]], dict[str, Any]], pattern: str) -> None:
    one, several = (prune_graph(classifier(), **part(patterns)).selection.keep for patterns in (pattern, [pattern]))
    assert one.keys() == several.keys() and one


def test_a_plain_string_is_one_pattern_of_what_may_shrink() -> None:
    assert analyze(classifier(), scope=Scope(allow_io="logits")).params > 0


def test_every_type_that_a_signature_names_is_on_the_face() -> None:
    functions = [value for name in pg.__all__ if inspect.isfunction(value := getattr(pg, name))]
    for staged in (pg.Graph, pg.PruneResult):
        functions += [f for name, f in vars(staged).items() if inspect.isfunction(f) and not name.startswith("_")]
    for function in functions:
        class_names = re.findall(r"[A-Z]\w+", " ".join(map(str, function.__annotations__.values())))
        ours = [name for name in class_names if name != "Array" and is_ours(function, name)]  # that is numpy's
        assert set(ours) <= set(pg.__all__), function.__qualname__


def is_ours(function: Callable[..., Any], name: str) -> bool:
    """Whether a name in a signature is a type or an alias of this package; those of type checkers alone count too."""
    source = inspect.getsource(sys.modules[function.__module__])
    return (
        re.search(rf"^ *from prunegraph[.\w]* import [^\n]*\b{name}\b|^class {name}\b", source, re.MULTILINE)
        is not None
    )
