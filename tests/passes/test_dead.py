"""Dead units go without a change of any output: those that are zero, those that nothing reads, and constant ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import prunegraph as pg
from prunegraph.errors import NothingToPrune, UsageError
from prunegraph.proof import compare
from tests.graphs import attention
from tests.graphs.builder import Builder
from tests.graphs.run import outputs

UNITS = 12
DEAD = np.arange(0, UNITS, 3)
DEAD_ONES = pg.Amount(dead=True)

Change = Callable[[dict[str, np.ndarray]], None]


def zeros(**parts: Any) -> Change:
    def change(weights: dict[str, np.ndarray]) -> None:
        for name, index in parts.items():
            weights[name][index] = 0

    return change


def mlp(act: str, change: Change, *, bias: bool = True, gated: bool = False) -> onnx.ModelProto:
    g = Builder("dead_mlp", opset=20)
    g.input("x", "batch", "row", 8)
    for name, shape in (("w_in", (8, UNITS)), ("b_in", (UNITS,)), ("w_up", (8, UNITS)), ("w_out", (UNITS, 5))):
        if name != "w_up" or gated:
            g.weight(name, *shape)
    change(g.initializers)
    hidden = g(act, g("Add", g("MatMul", "x", "w_in"), "b_in"))
    if gated:
        hidden = g("Mul", hidden, g("MatMul", "x", "w_up"))
    y = g("MatMul", hidden, "w_out")
    g.output(g("Add", y, g.weight("b_out", 5)) if bias else y, "batch", "row", 5)
    return g.model()


def convolutions(change: Change, *, folded: bool = False, pads: int = 0) -> onnx.ModelProto:
    g = Builder("dead_conv")
    g.input("x", "batch", 3, "h", "w")
    g.weight("w_in", UNITS, 3, 1, 1)
    for name in ("b_in", "gain", "offset", "mean"):
        g.weight(name, UNITS)
    g.weight("w_out", 4, UNITS, 3, 3)
    change(g.initializers)
    hidden = g("Conv", "x", "w_in", "b_in")
    if folded:
        for name in ("gain", "offset", "mean"):
            del g.initializers[name]
    else:
        variance = g.const("variance", np.full(UNITS, 0.7, np.float32))
        hidden = g("BatchNormalization", hidden, "gain", "offset", "mean", variance)
    g.output(g("Conv", g("Relu", hidden), "w_out", pads=[pads] * 4), "batch", 4, None, None)
    return g.model()


def positive(name: str) -> Change:
    def change(weights: dict[str, np.ndarray]) -> None:
        weights[name][DEAD] = np.abs(weights[name][DEAD]) + 1

    return change


def both(*changes: Change) -> Change:
    def change(weights: dict[str, np.ndarray]) -> None:
        for each in changes:
            each(weights)

    return change


COLUMNS, ROWS = np.s_[:, DEAD], DEAD
UNMADE = zeros(w_in=COLUMNS, b_in=DEAD)
CONSTANT = both(zeros(w_in=COLUMNS), positive("b_in"))
GONE = [int(k) for k in np.setdiff1d(np.arange(UNITS), DEAD)]

CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "nothing makes them": (lambda: mlp("Gelu", UNMADE), "ffn.0"),
    "nothing reads them": (lambda: mlp("Sigmoid", zeros(w_out=DEAD)), "ffn.0"),
    "constant": (lambda: mlp("Relu", CONSTANT), "ffn.0"),
    "constant, by an act that lifts zero": (lambda: mlp("Sigmoid", UNMADE), "ffn.0"),
    "constant, nothing adds a bias": (lambda: mlp("Gelu", CONSTANT, bias=False), "ffn.0"),
    "a gate that is zero": (lambda: mlp("Gelu", UNMADE, gated=True), "ffn.0"),
    "gated by zero": (lambda: mlp("Sigmoid", zeros(w_up=COLUMNS), gated=True), "ffn.0"),
    "a norm that scales by zero": (lambda: convolutions(zeros(gain=DEAD, offset=DEAD), pads=1), "channel.0"),
    "a norm that leaves its offset": (lambda: convolutions(both(zeros(gain=DEAD), positive("offset"))), "channel.0"),
    "a folded norm": (lambda: convolutions(zeros(w_in=DEAD, b_in=DEAD), folded=True, pads=1), "channel.0"),
    "a folded norm with an offset": (
        lambda: convolutions(both(zeros(w_in=DEAD), positive("b_in")), folded=True),
        "channel.0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_exactly_the_dead_go_and_nothing_changes(name: str) -> None:
    make, group = CASES[name]
    model = make()
    result = pg.prune_graph(model, DEAD_ONES)
    assert {key: np.flatnonzero(mask).tolist() for key, mask in result.selection.keep.items()} == {group: GONE}
    x = np.random.default_rng(1).normal(size=(2, 8, 8) if "ffn" in group else (2, 3, 7, 9)).astype(np.float32)
    for before, after in zip(outputs(model, {"x": x}), outputs(result.model, {"x": x}), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.max_rel_error < 1e-5


ZERO = [name for name in CASES if "constant" not in name and "offset" not in name]


@pytest.mark.parametrize("scorer", ["magnitude", "snp"])
@pytest.mark.parametrize("name", ZERO)
def test_the_dead_go_first_for_every_scorer_of_weights(name: str, scorer: str) -> None:
    make, group = CASES[name]
    scores = pg.analyze(make()).score(scorer)[group]
    assert (scores[DEAD] == 0).all() and (scores[GONE] > 0).all()


STAYS: dict[str, Callable[[], onnx.ModelProto]] = {
    "nothing is dead": lambda: mlp("Gelu", lambda weights: None),
    "the border of the image sees another constant": lambda: convolutions(
        both(zeros(gain=DEAD), positive("offset")), pads=1
    ),
    "a constant gate is a factor": lambda: mlp("Sigmoid", UNMADE, gated=True),
    "only some numbers are zero": lambda: mlp("Relu", zeros(w_in=np.s_[:4, DEAD], w_out=np.s_[DEAD, :2])),
}


@pytest.mark.parametrize("name", STAYS)
def test_the_living_stay(name: str) -> None:
    with pytest.raises(NothingToPrune, match="no unit is dead or constant"):
        pg.prune_graph(STAYS[name](), DEAD_ONES)


def test_heads_and_dims_of_heads() -> None:
    """A head whose values are zero goes whole; of dims that are chosen head by head as many as are dead in each."""
    model, width = attention.mha(), attention.D
    last = np.s_[..., (attention.H - 1) * width :]
    seconds = np.s_[..., 1::width]
    planted = {"w_v": last, "b_v": last, "w_q": seconds, "b_q": seconds}
    for tensor in model.graph.initializer:
        if tensor.name in planted:
            array = np.array(onnx.numpy_helper.to_array(tensor))
            array[planted[tensor.name]] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    keep = pg.prune_graph(model, DEAD_ONES).selection.keep
    assert np.flatnonzero(~keep["head.0"]).tolist() == [attention.H - 1]
    assert all(np.flatnonzero(~row).tolist() == [1] for row in keep["qk_dim.0"][:-1])


def test_a_dead_block_goes_whole() -> None:
    g = Builder("dead_block")
    g.input("x", "batch", 8)
    g.weight("w_in", 8, UNITS)
    g.weight("w_out", UNITS, 8)
    g.initializers["w_out"][:] = 0
    g.output(g("Add", "x", g("MatMul", g("Relu", g("MatMul", "x", "w_in")), "w_out")), "batch", 8)
    result = pg.prune_graph(g.model(), DEAD_ONES)
    assert not result.selection.keep["ffn.0"].any() and result.report.params[1] <= 1


def test_the_plan_says_what_was_folded(tmp_path: Path) -> None:
    model = mlp("Gelu", CONSTANT, bias=False)
    onnx.save(model, tmp_path / "model.onnx")
    result = pg.prune_graph(tmp_path / "model.onnx", DEAD_ONES)
    result.save(tmp_path / "slim.onnx")
    stated = json.loads((tmp_path / "slim.plan.json").read_text())["dead"]
    assert stated[0]["w_out"]["features"] == DEAD.tolist()
    from prunegraph.cli.plan_file import read_plan

    plan = read_plan(tmp_path / "slim.plan.json")
    assert plan.dead is not None
    paths = tmp_path / "model.onnx", tmp_path / "slim.onnx"
    assert pg.verify(*paths, plan.selection, dead=plan.dead).ok
    wrong = [{"w_out": type(plan.dead[0]["w_out"])(plan.dead[0]["w_out"].features, (9.0,) * len(DEAD))}]
    assert not pg.verify(*paths, plan.selection, dead=wrong).ok
    graph = pg.analyze(model)
    lively = pg.Selection({"ffn.0": np.arange(UNITS) > 1})
    slim = graph.apply(lively).ir_model
    assert compare(graph, slim, lively).ok and not compare(graph, slim, lively, dead=[]).ok


def test_no_other_amount_stands_beside_it() -> None:
    with pytest.raises(UsageError, match="another amount beside dead units"):
        pg.Amount(0.5, dead=True)
