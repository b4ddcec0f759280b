"""Pruning among the passes of others: those of onnx_ir, and Olive's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import DeduplicateInitializersPass, NameFixPass

import prunegraph as pg
import prunegraph.passes
from prunegraph.passes import PrunePass
from tests.graphs.cli import classifier


def bytes_of(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString()


def test_pruning_is_a_pass_among_others() -> None:
    model = ir.from_proto(classifier())
    before = bytes_of(model)
    prune = PrunePass({"ffn": 0.5}, scorer="random")
    passed = ir.passes.Sequential(NameFixPass(), prune, DeduplicateInitializersPass())(model)
    assert passed.modified and prune.result is not None and prune.result.report.verify is not None
    expected = pg.prune_graph(ir.from_proto(classifier()), {"ffn": 0.5}, scorer="random")
    assert prune.result.selection.to_json() == expected.selection.to_json()
    sizes = [sum(v.const_value.size for v in each.graph.initializers.values()) for each in (model, passed.model)]  # type: ignore[union-attr]
    assert sizes[1] < sizes[0] and bytes_of(model) == before


def test_what_cannot_be_pruned_is_told() -> None:
    with pytest.raises(pg.UsageError, match="abacus"):
        PrunePass({"abacus": 0.5})(ir.from_proto(classifier()))


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Prune'"):
        prunegraph.passes.Prune  # noqa: B018


@pytest.fixture
def olive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the pass takes of Olive, where that is not installed."""
    (tmp_path / "olive_config.json").write_text('{"passes": {"Other": {}}}')
    handler = type("ONNXModelHandler", (SimpleNamespace,), {})
    config = SimpleNamespace(get_default_config_path=lambda: str(tmp_path / "olive_config.json"))
    parts: dict[str, dict[str, Any]] = {
        "": {},
        ".hardware": {"AcceleratorSpec": object},
        ".model": {"ONNXModelHandler": handler},
        ".model.utils": {"resolve_onnx_path": lambda path: f"{path}/model.onnx"},
        ".package_config": {"OlivePackageConfig": config},
        ".passes": {"Pass": type("Pass", (), {})},
        ".passes.pass_config": {"BasePassConfig": object, "PassConfigParam": SimpleNamespace},
    }
    for name, names in parts.items():
        module = ModuleType(f"olive{name}")
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "prunegraph.olive", raising=False)


def test_the_pass_of_olive_writes_a_slim_model_and_its_plan(olive: None, tmp_path: Path) -> None:
    from prunegraph.olive import PruneGraph, package_config

    onnx.save(classifier(), tmp_path / "model.onnx")
    options = PruneGraph._default_config(None)
    assert all(each.default_value is None and each.description for each in options.values())
    stated = dict.fromkeys(options) | {"ratio": {"ffn": 0.5}, "scorer": "random"}
    source = SimpleNamespace(model_path=str(tmp_path / "model.onnx"))
    handler = PruneGraph()._run_for_config(source, SimpleNamespace(**stated), str(tmp_path / "out"))
    slim = tmp_path / "out" / "model.onnx"
    assert Path(handler.model_path) / handler.onnx_file_name == slim
    plan = pg.Selection.load(slim.with_name("model.plan.json"))
    assert pg.verify_files(tmp_path / "model.onnx", slim, plan).ok
    assert package_config()["passes"].keys() == {"Other", "PruneGraph"}
