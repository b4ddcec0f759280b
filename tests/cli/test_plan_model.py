"""A plan knows the model that it was made from: by what that holds, not by where it lies or what it is called."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import prunegraph as pg
from prunegraph.analysis.selection import ModelMark, Selection
from prunegraph.errors import UsageError, VerificationFailed
from tests.cli.test_bad_files import PRUNE, SLIM, mlp, refused
from tests.cli.test_cli import done, folder, run

__all__ = ["folder"]

VERIFY = ("verify", "other.onnx", SLIM)


def renamed(model: onnx.ModelProto) -> None:
    onnx.save(model, "other.onnx")


def in_a_data_file(model: onnx.ModelProto) -> None:
    onnx.save(model, "other.onnx", save_as_external_data=True, location="weights", size_threshold=0)


def as_numbers(model: onnx.ModelProto) -> None:
    """Weights as lists of numbers, not as bytes."""
    for tensor in model.graph.initializer:
        numbers = numpy_helper.to_array(tensor).reshape(-1)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(numbers)
    onnx.save(model, "other.onnx")


def with_notes(model: onnx.ModelProto) -> None:
    model.doc_string, model.producer_name = "notes", "another tool"
    model.graph.node[0].name = "renamed"
    onnx.save(model, "other.onnx")


@pytest.mark.parametrize("change", [renamed, in_a_data_file, as_numbers, with_notes])
def test_the_same_model_elsewhere_is_the_same(change: Callable[[onnx.ModelProto], None], folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    done(*PRUNE)
    change(mlp())
    done(*VERIFY)


def another_weight(model: onnx.ModelProto) -> None:
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = np.nextafter(weight[0, 0], np.float32(9))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))


def another_op(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Abs"


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


@pytest.mark.parametrize("change", [another_weight, another_op, another_opset])
def test_another_original_is_refused_and_both_are_named(
    change: Callable[[onnx.ModelProto], None], folder: Path
) -> None:
    onnx.save(mlp(), "model.onnx")
    done(*PRUNE)
    other = mlp()
    change(other)
    onnx.save(other, "other.onnx")
    message = refused(VERIFY, 1, "the plan was made for model.onnx (", "the model it was made from")
    assert "this is other.onnx (" in message
    assert "made for model.onnx" in run("report", "other.onnx", SLIM, "-o", "report.json").stderr


def test_a_plan_of_a_former_release_knows_none(folder: Path) -> None:
    onnx.save(mlp(), "model.onnx")
    done(*PRUNE)
    plan = json.loads(Path("slim.plan.json").read_text())
    assert plan.pop("model")["name"] == "model.onnx"
    Path("slim.plan.json").write_text(json.dumps(plan))
    done("verify", "model.onnx", SLIM)
    done("report", "model.onnx", SLIM, "-o", "report.json")


def test_a_selection_that_was_saved_knows_its_graph(tmp_path: Path) -> None:
    one, other = mlp(), mlp(w1=np.ones((4, 8)))
    graph = pg.analyze(one)
    selection = graph.select(graph.score(), 0.5)
    selection.save(tmp_path / "plan.json")
    loaded = Selection.load(tmp_path / "plan.json")
    assert loaded.made_for == ModelMark("mlp", graph.mark.digest)
    assert graph.apply(loaded).report.verify and pickle.loads(pickle.dumps(graph)).apply(loaded)
    for foreign in (loaded, loaded.replaced(Selection({})), loaded.then(Selection({}), graph.groups)):
        with pytest.raises(UsageError, match=r"made for mlp \(.*, and this is mlp \("):
            pg.analyze(other).apply(foreign)
    with pytest.raises(VerificationFailed, match="does not fit the model: the plan was made for"):
        pg.verify_files(other, graph.apply(loaded).model, loaded)


def test_pruning_does_not_change_what_a_model_is(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "model.onnx")
    before = pg.analyze(tmp_path / "model.onnx")
    result = pg.prune_graph(tmp_path / "model.onnx", 0.5)
    assert json.loads(result.plan())["model"] == {"name": "model.onnx", "digest": before.mark.digest}
