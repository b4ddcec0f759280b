"""Rotation in the whole: by default where data are given, proven, planned, verified, refused when tampered with."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.errors import UsageError, VerificationFailed
from prunegraph.passes.prove import verify as verification
from prunegraph.passes.prove.verify import Verification
from prunegraph.result import PruneResult
from prunegraph.runtime.session import open_session, run
from tests.graphs import attention, fused
from tests.graphs.odd import retyped
from tests.graphs.small import GRAPHS

pytestmark = pytest.mark.slow

DATA = {"x": np.random.default_rng(0).normal(size=(24, 6, 7)).astype(np.float32)}
HALF = {"qk_dim": 0.5, "v_dim": 0.5}


def prune(model: Any = None, amount: Any = None, data: Any = DATA, **more: Any) -> PruneResult:
    return pg.prune_graph(model or attention.mha(), amount or HALF, data=data, **more)


def rotated(result: PruneResult) -> dict[str, Any]:
    return result.to_dict()["rotate"] or {"groups": {}}


def test_where_data_are_given_dims_are_turned_and_the_last_ones_go() -> None:
    result = prune()
    assert rotated(result)["groups"] == {"qk_dim.0": "data", "v_dim.0": "data"}
    assert 0 < rotated(result)["max_rel_error"] < 1e-5
    assert result.report.verify is not None and result.report.verify.ok and result.report.verify.moved > 1e-3
    for keep in result.selection.keep.values():
        assert keep[:, :2].all() and not keep[:, 2:].any()
    assert set(json.loads(result.plan())["rotate"]) == {"qk_dim.0", "v_dim.0"}


@pytest.mark.parametrize(
    ("fields", "more", "groups"),
    [
        ({}, {"data": None}, {}),
        ({"rotate": False}, {}, {}),
        ({"rotate": True}, {"data": None}, {"qk_dim.0": "weights", "v_dim.0": "weights"}),
        ({}, {"scorer": "snp"}, {}),
        ({}, {"scorer": "activation"}, {"qk_dim.0": "data", "v_dim.0": "data"}),
        ({}, {"scorer": {"v_dim": "activation"}}, {"qk_dim.0": "data"}),
        ({"rotate": True}, {"scorer": "snp"}, {"qk_dim.0": "data", "v_dim.0": "data"}),
    ],
)
def test_when_it_turns(fields: dict[str, Any], more: dict[str, Any], groups: dict[str, str]) -> None:
    result = prune(amount=pg.Amount(HALF, **fields), **more)
    assert rotated(result)["groups"] == groups
    assert set(json.loads(result.plan()).get("rotate", {})) == set(groups)
    assert {g.after for g in result.report.groups} == {2}


def test_an_op_that_makes_queries_and_keys_inside_is_turned_by_data() -> None:
    whole = {**DATA, "mask": np.ones((24, 6), dtype=np.int32)}

    def lost(rotate: Any, data: Any) -> float:
        result = prune(fused.attention(), pg.Amount({"qk_dim": 0.5}, rotate=rotate), data, after=[], scorer="magnitude")
        if data is not None:
            assert rotated(result)["groups"] == ({"qk_dim.0": "data"} if rotate else {})
        before, after = (output(ir.from_proto(model), whole) for model in (fused.attention(), result.model))
        return float(np.linalg.norm(after - before))

    assert lost(True, whole) < min(lost(True, None), lost(False, whole))


def test_an_amount_rotates_or_not() -> None:
    with pytest.raises(UsageError, match="rotate cannot be 'yes'"):
        pg.Amount(0.5, rotate="yes")  # type: ignore[arg-type]


def test_what_may_not_turn_is_chosen_in_and_says_why() -> None:
    result = prune(attention.rope_half())
    assert rotated(result)["groups"] == {"v_dim.0": "data"}
    assert "varies along it" in rotated(result)["stay"]["qk_dim.0"]
    assert {g.id: g.after for g in result.report.groups} == {"qk_dim.0": 2, "v_dim.0": 4}


@pytest.mark.parametrize(("format_", "dtype"), [("FLOAT16", np.float16), ("BFLOAT16", ml_dtypes.bfloat16)])
def test_half_precision_is_proven_within_its_rounding(format_: str, dtype: Any) -> None:
    model = retyped(GRAPHS["mha"](), getattr(onnx.TensorProto, format_))
    (value,) = model.graph.input
    shape = [dim.dim_value or 5 for dim in value.type.tensor_type.shape.dim]
    data = {value.name: np.random.default_rng(1).normal(size=(8, *shape[1:])).astype(dtype)}
    result = prune(model, data=data, after=[])
    assert rotated(result)["groups"]
    assert 1e-5 < rotated(result)["max_rel_error"] < 4 * float(ml_dtypes.finfo(dtype).eps)


@pytest.mark.parametrize(("name", "runs"), [("mha", 1), ("half", 2)])
def test_one_comparison_proves_both_halves_where_nothing_is_rounded_anew(
    name: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(original: ir.Model, *args: Any, **more: Any) -> Verification:
        calls.append(original)
        return verification.verify(original, *args, **more)

    monkeypatch.setattr("prunegraph.proof.verify", counted)
    monkeypatch.setattr("prunegraph.passes.rotate.prove.verify", counted)
    result = prune(GRAPHS[name](), pg.Amount(HALF, rotate=True), data=None, after=[])
    assert len(calls) == runs and result.report.verify is not None and result.report.verify.ok
    assert 0 < rotated(result)["max_rel_error"]
    assert result.report.verify.normalize_error == rotated(result)["max_rel_error"]


def test_other_kinds_are_scored_in_the_basis_that_they_had() -> None:
    amount = {"head": 0.34, **HALF}
    plain, turned = (prune(amount=pg.Amount(amount, rotate=rotate), after=[]) for rotate in (False, True))
    np.testing.assert_array_equal(plain.selection.keep["head.0"], turned.selection.keep["head.0"])


def test_the_slim_model_is_nearer_than_by_choosing() -> None:
    def lost(rotate: bool) -> float:
        result = prune(amount=pg.Amount({"qk_dim": 0.5}, rotate=rotate), scorer="snp", after=[])
        before, after = (output(ir.from_proto(model)) for model in (attention.mha(), result.model))
        return float(np.linalg.norm(after - before) / np.linalg.norm(before))

    assert lost(True) < 0.8 * lost(False)


def output(model: ir.Model, data: dict[str, Any] = DATA) -> np.ndarray:
    with open_session(model) as session:
        return run(session, data)[0]


# ---- the staged object ----------------------------------------------------------------------------------------------


def test_the_staged_object_turns_too() -> None:
    graph = pg.analyze(attention.mha())
    assert graph.bases == {"qk_dim.0": "", "v_dim.0": ""}
    assert "qk_dim.0: rotates" in graph.explain() and "v_dim.0: rotates" in graph.explain()
    turned = graph.rotate(DATA, groups=["qk_dim.0", "v_dim.0"])
    result = turned.apply(turned.select(turned.score("magnitude"), HALF))
    assert weights(result) == weights(prune(after=[]))
    again = pickle.loads(pickle.dumps(turned))
    assert weights(again.apply(result.selection)) == weights(result)
    assert result.verify().ok and result.verify(DATA).ok
    assert graph.apply(result.selection).report.rotate is None  # the graph itself has not changed


def weights(result: PruneResult) -> dict[str, bytes]:
    return {each.name: numpy_helper.to_array(each).tobytes() for each in result.model.graph.initializer}  # type: ignore[union-attr]


def test_a_model_turns_once_and_only_groups_that_it_has() -> None:
    graph = pg.analyze(attention.mha())
    with pytest.raises(UsageError, match="turned already"):
        graph.rotate().rotate()
    with pytest.raises(UsageError, match="no group"):
        graph.rotate(groups=["qk_dim.3"])


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    model, slim = tmp_path / "model.onnx", tmp_path / "slim.onnx"
    onnx.save(attention.gqa(), model)
    np.savez(tmp_path / "data.npz", **DATA)
    call = ["prune", str(model), "-o", str(slim), "--ratio", "qk_dim=0.5", "--ratio", "v_dim=0.5"]
    result = CliRunner().invoke(app, [*call, "--data", str(tmp_path / "data.npz")])
    assert result.exit_code == 0, result.output
    assert "rotated: 2 groups" in " ".join(result.output.split())
    return model, slim, tmp_path / "slim.plan.json"


def verify(model: Path, slim: Path) -> int:
    return CliRunner().invoke(app, ["verify", str(model), str(slim)]).exit_code


def test_a_written_file_is_proven_from_its_plan(files: tuple[Path, Path, Path]) -> None:
    assert verify(files[0], files[1]) == 0


def test_no_rotate_leaves_the_dims(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    call = [
        "prune",
        str(files[0]),
        "-o",
        str(tmp_path / "other.onnx"),
        "--ratio",
        "qk_dim=0.5",
        "--no-rotate",
        "--json",
    ]
    result = CliRunner().invoke(app, [*call, "--data", str(tmp_path / "data.npz")])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rotate"] is None


def change_matrix(plan: dict[str, Any]) -> None:
    entry = plan["rotate"]["qk_dim.0"]["matrices"][0]
    values = np.frombuffer(base64.b64decode(entry["float32"]), dtype="<f4").reshape(entry["shape"]).copy()
    values[0, 0, 0] += 0.1
    entry["float32"] = base64.b64encode(values.tobytes()).decode()


def swap_groups(plan: dict[str, Any]) -> None:
    plan["rotate"] = dict(zip(plan["rotate"], reversed(plan["rotate"].values()), strict=True))


TAMPERED = {
    "a matrix": change_matrix,
    "the matrices of two groups": swap_groups,
    "no rotation": lambda plan: plan.pop("rotate"),
    "half of it": lambda plan: plan["rotate"].pop("v_dim.0"),
    "text": lambda plan: plan.update(rotate="yes"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_rotation_is_refused(name: str, files: tuple[Path, Path, Path]) -> None:
    model, slim, path = files
    plan = json.loads(path.read_text())
    TAMPERED[name](plan)
    path.write_text(json.dumps(plan))
    assert verify(model, slim) == 1


def test_a_tampered_weight_is_refused(files: tuple[Path, Path, Path]) -> None:
    model, slim, path = files
    proto, repaired = onnx.load(slim), set(json.loads(path.read_text()).get("repair", {}).get("changed", []))
    (weight,) = [each for each in proto.graph.initializer if each.name == "w_q"]
    assert weight.name not in repaired
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] += 0.1
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, slim)
    assert verify(model, slim) == 1


def test_a_rotation_that_does_not_fit_fails_the_proof() -> None:
    result = prune(after=[])
    graph = pg.analyze(attention.rope_half())
    with pytest.raises(VerificationFailed):
        pg.verify(graph.original, result.model, result.selection, rotation=result.report.rotate.rotation)  # type: ignore[union-attr]


def test_explain_says_which_groups_turn(tmp_path: Path) -> None:
    onnx.save(attention.rope_half(), tmp_path / "model.onnx")
    text = " ".join(CliRunner().invoke(app, ["explain", str(tmp_path / "model.onnx")]).output.split())
    assert "rotates: v_dim.0:" in text
    assert "keeps its basis: qk_dim.0: n_mul1 (Mul) scales it by something that varies along it" in text
    groups = json.loads(CliRunner().invoke(app, ["explain", str(tmp_path / "model.onnx"), "--json"]).stdout)["groups"]
    rotations = {group["id"]: (group.get("rotates"), group.get("rotates_not")) for group in groups}
    assert rotations["v_dim.0"] == (True, "")
    assert rotations["qk_dim.0"][0] is False and "varies along it" in rotations["qk_dim.0"][1]
    assert rotations["head.0"] == (None, None)


def test_dims_of_queries_go_by_snp_where_nobody_scores_them_and_data_are_given() -> None:
    by = {
        name: prune(attention.rope_half(), pg.Amount({"qk_dim": 0.5}, rotate=False), scorer=scorer, after=[])
        for name, scorer in (("activation", "activation"), ("snp", "snp"), ("magnitude", "magnitude"), ("none", None))
    }
    keep = {name: result.selection.keep["qk_dim.0"].tolist() for name, result in by.items()}
    assert keep["activation"] == keep["none"] == keep["snp"] != keep["magnitude"]
    named = prune(
        attention.rope_half(), pg.Amount({"qk_dim": 0.5}, rotate=False), scorer={"v_dim": "activation"}, after=[]
    )
    assert named.selection.keep["qk_dim.0"].tolist() == keep["snp"]
    alone = prune(attention.rope_half(), {"qk_dim": 0.5}, data=None)
    assert alone.selection.keep["qk_dim.0"].tolist() == keep["magnitude"]
