"""Repair front to back: models run in pieces, places are fitted on what the cut model gives them, outputs decide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import prunegraph as pg
from prunegraph.observe.divergence import divergence, outputs_of
from prunegraph.passes.repair.pieces import Pieces
from prunegraph.passes.repair.residual_fit import NormMoments, ProductMoments
from prunegraph.passes.repair.statistics import FIT, JUDGE
from prunegraph.runtime.providers import CPU
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder, layer_norm, linear

WIDTH, TOKENS, CLASSES = 12, 6, 4


def post_norm(blocks: int = 2) -> onnx.ModelProto:
    """Tokens, and blocks of an FFN whose sum with what it is given is normalized; classes of the mean."""
    g = Builder("post-norm", 17)
    base = linear(g, g.input("x", "B", TOKENS, 8), "in", 8, WIDTH)
    h = layer_norm(g, base, "norm", WIDTH)
    for k in range(blocks):
        up = g("Relu", linear(g, h, f"up{k}", WIDTH, 20))
        h = layer_norm(g, g("Add", linear(g, up, f"down{k}", 20, WIDTH), h), f"norm{k}", WIDTH)
    g.output(linear(g, g("ReduceMean", h, axes=[1], keepdims=0), "head", WIDTH, CLASSES), "B", CLASSES)
    return g.model()


def tokens(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Few directions, so that what stays tells of what goes."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(9).normal(size=(4, 8))
    return {"x": (rng.normal(size=(count, TOKENS, 4)) @ mixed).astype(np.float32)}


def harm(whole: pg.Graph, slim: ir.Model) -> float:
    inputs = whole.inputs(pg.Data(tokens(64, seed=1)).opened())
    return divergence(slim, outputs_of(whole.normalized.model, whole.analysis, inputs))


# ---- running in pieces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 5, 9), ()])
def test_run_in_pieces_is_run_whole(cuts: tuple[int, ...], tmp_path: Path) -> None:
    model = ir.from_proto(post_norm())
    batches = [tokens(3), tokens(2, seed=4)]
    pieces = Pieces(model, tmp_path, CPU)
    for number, feeds in enumerate(batches):
        pieces.begin(number, feeds)
    for cut in cuts:
        for _ in pieces.run(len(batches), cut, [], move=True):
            pass
    output = model.graph.outputs[0].name or ""
    arrays = [values[output] for values in pieces.run(len(batches), len(pieces.nodes), [output], move=False)]
    with open_session(model) as session:
        for feeds, values in zip(batches, arrays, strict=True):
            assert np.allclose(values, run(session, feeds)[0], atol=1e-5)
    assert len(list(tmp_path.iterdir())) == len(batches)  # one boundary of activations


# ---- one place -------------------------------------------------------------------------------------------------------


def test_a_product_is_fitted_by_least_squares_of_what_it_lacks() -> None:
    rng = np.random.default_rng(0)
    x, change, offset = rng.normal(size=(400, 5)) + 1, rng.normal(size=(5, 3)), rng.normal(size=3)
    moments = ProductMoments()
    for part, where in ((FIT, slice(0, 300)), (JUDGE, slice(300, 400))):
        lacks = x[where] @ change + offset
        moments.add(part, x[where], lacks, np.ones(len(lacks)), float(len(lacks)))
    fitted = moments.fitted(biased=True)
    assert fitted.method == "lstsq" and fitted.change is not None and fitted.offset is not None
    assert np.allclose(fitted.change, change, atol=0.02) and np.allclose(fitted.offset, offset, atol=0.05)
    assert fitted.errors["lstsq"] < 0.01 * fitted.errors["none"]


def test_without_a_bias_the_weight_alone_is_fitted() -> None:
    x = np.random.default_rng(1).normal(size=(200, 4)) + 2
    moments = ProductMoments()
    for part in (FIT, JUDGE):
        moments.add(part, x, x @ np.ones((4, 2)), np.ones(200), 200.0)
    fitted = moments.fitted(biased=False)
    assert fitted.offset is None and fitted.change is not None and np.allclose(fitted.change, 1, atol=0.05)
    assert set(fitted.errors) == {"none", "lstsq"}


def test_a_norm_is_fitted_channel_by_channel() -> None:
    rng = np.random.default_rng(2)
    n = rng.normal(size=(300, 3))
    moments = NormMoments()
    for part in (FIT, JUDGE):
        moments.add(part, n, n * [0.5, 0, -0.2] + [0, 1, 0], np.ones(300), 300.0)
    fitted = moments.fitted(biased=True)
    assert fitted.method == "gain" and fitted.change is not None and fitted.offset is not None
    assert np.allclose(fitted.change, [0.5, 0, -0.2], atol=0.01) and np.allclose(fitted.offset, [0, 1, 0], atol=0.01)


@pytest.mark.parametrize("make", [ProductMoments, NormMoments])
def test_what_held_out_samples_do_not_show_changes_nothing(make: Callable[[], ProductMoments | NormMoments]) -> None:
    rng = np.random.default_rng(3)
    moments = make()
    for part, count in ((FIT, 12), (JUDGE, 200)):
        moments.add(part, rng.normal(size=(count, 8)), rng.normal(size=(count, 8)), np.ones(count), float(count))
    assert moments.fitted(biased=True).method == "none"


def test_one_part_alone_says_nothing() -> None:
    moments = ProductMoments()
    moments.add(FIT, np.ones((3, 2)), np.ones((3, 2)), np.ones(3), 3.0)
    assert moments.fitted(biased=True).errors == {}


# ---- whole models ----------------------------------------------------------------------------------------------------


def test_a_post_norm_stream_is_re_fitted_and_proven() -> None:
    whole = pg.analyze(post_norm())
    amount = pg.Amount(keep={"hidden": 8})
    bare = pg.prune_graph(post_norm(), amount, data=tokens(160), after=[])
    result = bare.repair(tokens(160))
    repair = result.report.repair
    assert repair is not None and repair.way == "sweep" and set(repair.ways) == {"none", "sweep"}
    assert {"gain", "lstsq"} <= set(repair.chosen)
    assert harm(whole, result.ir_model) < 0.5 * harm(whole, bare.ir_model)
    assert result.verify().ok and {"norm_scale", "w_up0"} <= set(repair.written.changed)
    assert json_of(repair)["way"] == "sweep"


def json_of(report: pg.passes.repair.Repaired) -> dict[str, object]:
    return report.to_dict()


@pytest.fixture(scope="module")
def exact() -> pg.PruneResult:
    """Half of the neurons gone, nothing repaired."""
    return pg.prune_graph(post_norm(), pg.Amount(ratio={"ffn": 0.5}), data=tokens(160), after=[])


def ways(result: pg.PruneResult, method: str) -> dict[str, float]:
    repair = result.repair(tokens(160), method).report.repair
    assert repair is not None and repair.requested == method
    return dict(repair.ways)


def test_exact_groups_are_swept_too_and_outputs_decide(exact: pg.PruneResult) -> None:
    by_default, in_any_case = ways(exact, "auto"), ways(exact, "sweep")
    assert by_default == in_any_case and set(by_default) == {"none", "at once", "sweep"}
    repaired = exact.repair(tokens(160))
    repair = repaired.report.repair
    assert repair is not None and repair.way == min(by_default, key=by_default.__getitem__)
    assert repaired.verify().ok and harm(pg.analyze(post_norm()), repaired.ir_model) < by_default["none"]


@pytest.mark.parametrize("method", ["bias", "lstsq"])
def test_what_is_named_is_done_at_once(exact: pg.PruneResult, method: str) -> None:
    assert ways(exact, method) == {}


@pytest.mark.parametrize("limit", ["SWEPT_BYTES", "SWEPT_DISK"])
def test_what_takes_much_is_swept_where_that_is_asked_for(
    exact: pg.PruneResult, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunegraph.passes.repair.repair." + limit, 100)
    assert ways(exact, "auto") == {} and set(ways(exact, "sweep")) == {"none", "at once", "sweep"}


def test_few_samples_choose_nothing(exact: pg.PruneResult) -> None:
    few = exact.repair(tokens(120)).report.repair
    assert few is not None and few.ways == {}


def test_where_nothing_is_lost_nothing_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = post_norm()
    for weight in model.graph.initializer:
        if weight.name in ("w_up0", "b_up0"):
            array = numpy_helper.to_array(weight).copy()
            array[..., :10] = 0
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    group = next(group.id for group in pg.analyze(model).groups if group.kind == "ffn")
    result = pg.prune_graph(model, pg.Amount(keep={group: 10}), data=tokens(160))
    assert result.report.repair is not None and result.report.repair.ways == {}


def test_the_better_way_is_taken_even_if_that_is_none() -> None:
    model, amount = post_norm(), pg.Amount(keep={"hidden": 8})
    result = pg.prune_graph(model, amount, data=tokens(9), after=[])  # too few: one sample judges, one is set apart
    repaired = result.repair(tokens(9))
    repair = repaired.report.repair
    assert repair is not None and repair.way == min(repair.ways, key=repair.ways.__getitem__)
    assert repair.way != "none" or repaired.ir_model is result.ir_model


def test_a_few_samples_without_any_set_apart_change_nothing() -> None:
    result = pg.prune_graph(post_norm(), pg.Amount(keep={"hidden": 8}), data=tokens(7))
    assert result.report.repair is not None and result.report.repair.ways == {}
