"""Repair: exact where what stays can make what goes, guarded where it cannot; verify knows what it changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from prunegraph import Amount, Repair, prune_graph
from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.cli import app
from prunegraph.errors import UsageError
from prunegraph.observe.stream import Data
from prunegraph.observe.text import Batch
from prunegraph.passes.repair import Outcome, repaired
from prunegraph.passes.repair.sites import RepairSite
from prunegraph.passes.repair.statistics import FIT, FLOOR, HELD, JUDGE, Gram
from prunegraph.result import PruneResult, apply
from prunegraph.runtime.session import open_session, run
from tests.graphs import attention as graphs_attention
from tests.graphs import blocks as graphs_blocks
from tests.graphs.builder import Builder, conv, linear

pytestmark = pytest.mark.slow

WIDTH, UNITS, GONE = 10, 12, 5
"""The last units of a hidden layer are what goes."""


def mlp(*, bias: bool = True, gemm: bool = False, name: str = "mlp") -> Builder:
    """Tokens in, a hidden layer with Relu, tokens out, and a sum with what came in."""
    g = Builder(name)
    x = g.input("x", *(("B", WIDTH) if gemm else ("B", "S", WIDTH)))
    h = g("Relu", linear(g, x, "up", WIDTH, UNITS))
    if gemm:
        y = g("Gemm", h, g.weight("w_down", WIDTH, UNITS), *([g.weight("b_down", WIDTH)] if bias else []), transB=1)
    else:
        y = linear(g, h, "down", UNITS, WIDTH, bias=bias)
    g.output(y, *(("B", WIDTH) if gemm else ("B", "S", WIDTH)))
    return g


def convolutions(*, bias: bool = True, pads: tuple[int, ...] = (0, 1, 1, 0)) -> Builder:
    g = Builder("convolutions")
    h = g("Relu", conv(g, g.input("x", "B", 3, 9, 9), "up", 3, UNITS))
    operands = [h, g.weight("w_down", 4, UNITS, 3, 3)] + ([g.weight("b_down", 4)] if bias else [])
    y = g("Conv", *operands, kernel_shape=[3, 3], strides=[2, 2], pads=list(pads), dilations=[2, 1])
    g.output(y, "B", 4, None, None)
    return g


def redundant(g: Builder) -> onnx.ModelProto:
    """What goes is half as much again as something that stays, past Relu too."""
    w, b = g.initializers["w_up"], g.initializers["b_up"]
    units = np.moveaxis(w, 0, -1) if w.ndim == 4 else w
    for k in range(UNITS - GONE, UNITS):
        units[..., k] = units[..., k - GONE] * 1.5
        b[k] = b[k - GONE] * 1.5
    return g.model()


def constant(g: Builder) -> onnx.ModelProto:
    w, b = g.initializers["w_up"], g.initializers["b_up"]
    (np.moveaxis(w, 0, -1) if w.ndim == 4 else w)[..., UNITS - GONE :] = 0
    b[UNITS - GONE :] = np.arange(1, GONE + 1)
    return g.model()


def samples(model: onnx.ModelProto, count: int = 40, length: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    collected = {}
    for value in model.graph.input:
        dims = [d.dim_value or length for d in value.type.tensor_type.shape.dim]
        collected[value.name] = rng.normal(size=(count, *dims[1:])).astype(np.float32)
    return collected


def without_last(analyzed: Analyzed, count: int = GONE) -> Selection:
    """All groups lose their last units."""

    def keep(group: Group) -> np.ndarray:
        return np.broadcast_to(np.arange(group.units) < max(group.units - count, 1), group.shape)

    return Selection({group.id: keep(group) for group in analyzed.analysis.groups if group.exact})


def repair(
    model: onnx.ModelProto, method: str = "auto", ridge: float = 1e-3, data: Mapping[str, np.ndarray] | None = None
) -> tuple[PruneResult, onnx.ModelProto | None, tuple[Outcome, ...]]:
    """What pruning gives, what repair makes of it, and what it says."""
    analyzed = load_and_analyze(model)
    selection = without_last(analyzed)
    bare = apply(analyzed, selection, check=False)
    inputs = Data(data or samples(model)).opened().inputs(analyzed.original)
    keeps = selection.keeps(analyzed.analysis.groups)
    repaired_model, what = repaired(analyzed.normalized.model, analyzed.analysis, keeps, inputs, method, ridge=ridge)
    return bare, repaired_model, what.outcomes


def outputs(model: object, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    with open_session(load_and_analyze(model).original) as session:  # type: ignore[arg-type]
        return run(session, data)


GRAPHS: dict[str, Callable[[], Builder]] = {
    "MatMul, Add": mlp,
    "MatMul": lambda: mlp(bias=False),
    "Gemm": lambda: mlp(gemm=True),
    "Gemm without bias": lambda: mlp(gemm=True, bias=False),
    "Conv": convolutions,
    "Conv without bias": lambda: convolutions(bias=False),
    "Conv without padding": lambda: convolutions(pads=(0, 0, 0, 0)),
}


@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
def test_what_is_made_of_kept_units_is_restored(make: Callable[[], Builder]) -> None:
    model = redundant(make())
    bare, repaired_model, (outcome,) = repair(model, "lstsq", ridge=1e-9)
    fresh = {name: array + 0.5 for name, array in samples(model, 7).items()}
    (expected,), (repaired,), (cut,) = outputs(model, fresh), outputs(repaired_model, fresh), outputs(bare.model, fresh)
    np.testing.assert_allclose(repaired, expected, atol=2e-4 * np.abs(expected).max())
    assert np.abs(cut - expected).max() > 0.05 * np.abs(expected).max()
    assert outcome.method == "lstsq" and outcome.after < 1e-3 < outcome.before
    assert outcome.features[1] < outcome.features[0]


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in ("Conv", "Conv without bias")])
def test_the_mean_stands_in_for_constant_units(name: str) -> None:
    """Not beside padding, where what is read is no constant."""
    make = GRAPHS[name]
    model = constant(make())
    bare, repaired_model, (outcome,) = repair(model, "bias")
    fresh = samples(model, 7)
    (expected,), (repaired,), (cut,) = outputs(model, fresh), outputs(repaired_model, fresh), outputs(bare.model, fresh)
    assert outcome.method == "bias" and outcome.after < 1e-3 < outcome.before
    np.testing.assert_allclose(repaired, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(cut - expected).max() > 0.05 * np.abs(expected).max()


def first_token_only() -> onnx.ModelProto:
    """The last unit fires on the first token alone, and hard."""
    g = Builder("first_token_only")
    g.output(
        linear(g, g("Relu", linear(g, g.input("x", "B", "S", WIDTH), "up", WIDTH, UNITS)), "down", UNITS, WIDTH),
        "B",
        "S",
        WIDTH,
    )
    w, b = g.initializers["w_up"], g.initializers["b_up"]
    w[0], w[:, -1], w[0, -1], b[-1] = 0, 0, 50, -40
    g.initializers["w_down"][-1] *= 10
    return g.model()


def test_a_unit_that_fires_on_one_token_is_not_spread_over_all() -> None:
    """Its mean lessens the squared error and ruins every other token: the guard looks at each of them."""
    model = first_token_only()
    data = samples(model, 40, length=20)
    data["x"][..., 0] = 0
    data["x"][:, 0, 0] = 10
    analyzed = load_and_analyze(model)
    (group,) = analyzed.analysis.groups
    keep = Selection({group.id: np.arange(UNITS) < UNITS - 1})
    inputs = Data(data).opened().inputs(analyzed.original)
    repaired_model, what = repaired(analyzed.normalized.model, analyzed.analysis, keep.keeps([group]), inputs, "bias")
    assert repaired_model is None and [outcome.method for outcome in what.outcomes] == ["none"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    unit = np.maximum(data["x"] @ weights["w_up"] + weights["b_up"], 0)[..., -1:]
    lost = unit * weights["w_down"][-1]
    assert np.square(lost - lost.mean(axis=(0, 1))).mean() < np.square(lost).mean()


def test_what_held_out_samples_do_not_show_is_not_repaired() -> None:
    """The units that go fire only in the samples that are fitted."""
    model = mlp().model()
    data = samples(model)
    (up,) = (tensor for tensor in model.graph.initializer if tensor.name == "w_up")
    array = numpy_helper.to_array(up).copy()
    array[0], array[0, UNITS - GONE :] = 0, 5
    up.CopyFrom(numpy_helper.from_array(array, "w_up"))
    data["x"][..., 0] = np.where(np.arange(len(data["x"])) % 4 == 3, -20, 20)[:, None]
    _, repaired_model, (outcome,) = repair(model, "bias", data=data)
    assert repaired_model is None and outcome.method == "none" and outcome.errors["bias"] > outcome.before


@pytest.mark.parametrize("make", [graphs_attention.gqa, graphs_attention.mha, graphs_blocks.transformer_block])
def test_attention_is_repaired_on_data(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    data = samples(model, 64, 8)
    result, bare = (prune_graph(model, 0.5, data=data, after=after) for after in (None, Repair("none")))
    assert result.report.repair is not None and bare.report.repair is None
    for outcome in result.report.repair.outcomes:
        assert outcome.after <= outcome.before and not outcome.reason
    fresh = {name: array for name, array in samples(model, 90, 8).items()}
    expected, repaired, cut = (outputs(each, fresh)[0] for each in (model, result.model, bare.model))
    assert np.square(repaired - expected).mean() < 0.9 * np.square(cut - expected).mean()


def test_layers_that_share_a_weight_share_its_repair() -> None:
    model = graphs_blocks.shared_layers()
    result = prune_graph(model, {"ffn": 0.5, "head": 0.5}, data=samples(model, 64, 8))
    assert result.report.repair is not None
    for outcome in result.report.repair.outcomes:
        assert len(outcome.where) == 2 and outcome.method != "none" and outcome.after < outcome.before
    names = [value.name for value in result.ir_model.graph.initializers.values()]
    assert len(names) == len(set(names)) and result.report.params[1] < result.report.params[0]


def test_a_weight_with_other_uses_stays() -> None:
    g = mlp()
    g.output(g("MatMul", g.const("other", np.ones((2, UNITS)), np.float32), "w_down"), 2, WIDTH)
    _, repaired_model, (outcome,) = repair(g.model())
    assert repaired_model is None and outcome.method == "none" and "other uses" in outcome.reason


def test_too_few_samples_change_nothing() -> None:
    model = redundant(mlp())
    _, repaired_model, (outcome,) = repair(model, data=samples(model, 2))
    assert repaired_model is None and "too few" in outcome.reason


def test_dead_units_need_no_repair() -> None:
    g = mlp()
    g.initializers["w_down"][UNITS - GONE :] = 0
    _, repaired_model, (outcome,) = repair(g.model())
    assert repaired_model is None and outcome.method == "none" and outcome.before == 0


def test_hidden_units_are_left_with_a_reason() -> None:
    model = graphs_blocks.transformer_block()
    result = prune_graph(model, {"hidden": 0.5}, data=samples(model, 16, 8), after=Repair("lstsq"))
    assert result.report.repair is not None
    assert result.report.repair.outcomes and all("mean" in o.reason for o in result.report.repair.outcomes)


# ---- what the caller asks for --------------------------------------------------------------------------------------


def test_the_default_is_auto_with_data_and_none_without() -> None:
    model = redundant(mlp())
    without, with_data = (prune_graph(model, scorer="magnitude", data=data) for data in (None, samples(model)))
    assert without.report.repair is None
    assert with_data.report.repair is not None and with_data.report.repair.requested == "auto"
    assert with_data.selection.to_json() == without.selection.to_json()


def test_none_changes_nothing() -> None:
    model = redundant(mlp())
    a = prune_graph(model, scorer="magnitude", data=samples(model), after=Repair("none"))
    b = prune_graph(model, scorer="magnitude")
    assert a.model == b.model and a.plan() == b.plan()
    assert a.report.to_dict()["repair"] is None


@pytest.mark.parametrize(("method", "message"), [("lstsq", "needs data"), ("training", "no repair")])
def test_what_cannot_be_done_is_refused(method: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prune_graph(mlp().model(), after=Repair(method))


# ---- the proof -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_verify_puts_back_what_was_repaired_and_looks_at_the_rest(tmp_path: Path, bias: bool) -> None:
    model = mlp(bias=bias).model()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **samples(model))
    slim, plan = tmp_path / "slim.onnx", tmp_path / "slim.plan.json"

    def call(*arguments: str | Path) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(map(str, arguments)), prog_name="prunegraph")
        return done.exit_code, done.stdout

    prune = ("prune", tmp_path / "model.onnx", "-o", slim, "--data", tmp_path / "data.npz")
    code, text = call(*prune)
    assert code == 0 and "repaired: 1 weights" in text
    code, text = call(*prune, "--json")
    reported = json.loads(text)["repair"]
    assert (
        reported["asked"] == "auto"
        and reported["weights"][0]["weight"] == "w_down"
        and reported["mean"][1] < reported["mean"][0]
    )
    planned = json.loads(plan.read_text())["repair"]
    assert "w_down" in planned["changed"] and bool(planned["added"]) is not bias
    code, text = call("verify", tmp_path / "model.onnx", slim)
    assert code == 0 and "re-fitted" in text
    code, text = call("verify", tmp_path / "model.onnx", slim, "--json")
    assert code == 0 and json.loads(text)["equal"] and "w_down" in json.loads(text)["refitted"]
    for name, expected in (("w_down", 0), ("w_up", 1)):
        touched = onnx.load(slim)
        (tensor,) = (tensor for tensor in touched.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.1), name))
        onnx.save(touched, tmp_path / "touched.onnx")
        assert call("verify", tmp_path / "model.onnx", tmp_path / "touched.onnx", "--plan", plan)[0] == expected
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "repair": {}}))
    assert call("verify", tmp_path / "model.onnx", slim)[0] == 1


def test_a_sub_block_that_goes_leaves_its_mean() -> None:
    model = graphs_blocks.transformer_block()
    data = samples(model, 64, 8)
    result = prune_graph(model, Amount(drop=["ffn.1"]), data=data)
    bare = prune_graph(model, Amount(drop=["ffn.1"]), data=data, after=Repair("none"))
    assert result.report.repair is not None
    (outcome,) = result.report.repair.outcomes
    assert outcome.method == "bias" and outcome.features[1] == 0 and outcome.after < outcome.before
    fresh = samples(model, 90, 8)
    expected, repaired, cut = (outputs(each, fresh)[0] for each in (model, result.model, bare.model))
    assert np.square(repaired - expected).mean() < np.square(cut - expected).mean()


def test_moments_are_formed_in_float64() -> None:
    """A mean that is large beside the deviation leaves nothing of it in float32."""
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(size=(8, 300, 4))).astype(np.float32)
    y = rng.normal(size=(8, 300, 2)).astype(np.float32)
    gram = Gram([RepairSite("node", "x", -1, "y", -1, "w")])
    gram.update(Batch({"x": x}, tuple(range(8)), None), {"x": x, "y": y})  # type: ignore[arg-type]
    sums, counts = gram.sums(("x", "y"))
    norms = np.square(y.astype(np.float64)).sum(axis=-1)
    weights = 1 / np.maximum(norms, FLOOR * np.median(norms))
    z = np.concatenate([x.astype(np.float64), np.ones((8, 300, 1))], axis=-1)
    held_out = np.arange(8) % HELD == HELD - 1
    for part, chosen in ((FIT, ~held_out), (JUDGE, held_out)):
        exact = np.einsum("bn,bni,bnj->ij", weights[chosen], z[chosen], z[chosen])
        np.testing.assert_allclose(sums[part], exact, rtol=1e-12)
        assert counts[part] == 300 * chosen.sum()
