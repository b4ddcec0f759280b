"""Equal forms: the function stays, a form is written only where a timing says that it is faster."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze
from prunegraph.bench.stats import PairedRatio
from prunegraph.passes.rewrite.for_runtime import FORMS, suit_runtime, write_forms
from prunegraph.pipeline import rewrite
from prunegraph.runtime.feeds import random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder, linear
from tests.graphs.run import outputs as run_graph
from tests.graphs.skeleton import load_skeleton
from tests.graphs.small import analysed

SLOWER, UNSURE, FASTER = (PairedRatio(*figures) for figures in ((0.9, 0.8, 0.95), (1.1, 0.99, 1.2), (1.2, 1.1, 1.3)))
EVERY_FORM = tuple(form.name for form in FORMS)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def outputs(model: ir.Model) -> list[np.ndarray]:
    specs = input_specs(model.graph)
    sizes = {dim: 3 for spec in specs for dim in spec.dims if isinstance(dim, str)}
    with open_session(model) as session:
        return run(session, random_feeds(specs, sizes, seed=0))


@pytest.mark.parametrize("name", ["transformer_block", "vit"])
def test_every_form_computes_the_same(name: str) -> None:
    model = analysed(name).model
    written = write_forms(model, EVERY_FORM)
    assert ops(written) != ops(model)
    assert [value.name for value in written.graph.outputs] == [value.name for value in model.graph.outputs]
    for a, b in zip(outputs(model), outputs(written), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def guarded(
    axis: int = -1, zero: float = 0.0, tested: str = "weights", readers: int = 1, op: str = "Softmax", rank: int = 3
) -> onnx.ModelProto:
    """Attention under a mask of which a row may be all minus infinity, with a guard against the NaN of that."""
    g = Builder(f"guard {axis} {zero} {tested} {readers} {op}", 18)
    x = g.input("x", "batch", 5, 8)
    scores = g("Add", g("MatMul", linear(g, x, "q", 8, 8), g("Transpose", x, perm=[0, 2, 1])), g.input("mask", 5, 5))
    weights = g(op, scores, axis=axis)
    guard = g("IsNaN", weights if tested == "weights" else scores)
    safe = g("Where", guard, np.array(zero, np.float32), weights)
    values = g("Reshape", linear(g, x, "v", 8, 8), [0, 0, 8]) if rank == 3 else g.weight("v", 5)
    g.output(g("MatMul", safe, values), *("batch", 5, 8)[:rank])
    if readers > 1:
        g.output(safe, "batch", 5, 5)
    return g.model()


def test_a_guard_behind_the_product_says_what_it_said_before_it() -> None:
    model = ir.from_proto(guarded())
    written = write_forms(model, EVERY_FORM)
    assert ops(written).index("MatMul", 3) < ops(written).index("Where") and ops(written).count("IsNaN") == 1
    mask = np.zeros((5, 5), np.float32)
    mask[1], mask[2, 3:] = -np.inf, -np.inf
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32), "mask": mask}
    (before,), (after,) = (run_graph(each, feeds) for each in (model, written))
    assert not before[:, 1].any() and before[:, 0].any() and np.isfinite(before).all()
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["zoo_bert", "zoo_bert_legacy", "zoo_gpt2"])
def test_guards_of_real_exports_are_found_and_what_is_written_is_proven(name: str) -> None:
    analyzed = load_and_analyze(load_skeleton(name))
    assert ops(write_forms(analyzed.original, EVERY_FORM)).count("Slice") > ops(analyzed.original).count("Slice")
    group = next(group for group in analyzed.analysis.groups if group.kind == "head")
    selection = Selection.of(analyzed.analysis.groups, remove={group.id: [1]})
    slim, report = rewrite(analyzed, selection, forms=EVERY_FORM)
    assert report.verify is not None and report.verify.ok
    plain, _ = rewrite(analyzed, selection, check=False)
    assert ops(slim).count("IsNaN") == ops(plain).count("IsNaN") == 2
    again, before = (load_and_analyze(ir.to_proto(each)).analysis.groups for each in (slim, plain))
    assert [(g.kind, g.shape) for g in again] == [(g.kind, g.shape) for g in before]


@pytest.mark.parametrize(
    "odd",
    [{"axis": 1}, {"zero": 1.0}, {"tested": "scores"}, {"readers": 2}, {"op": "LogSoftmax"}, {"rank": 2}],
    ids=lambda odd: next(iter(odd)),
)
def test_what_is_no_guard_of_a_softmax_before_a_product_stays(odd: dict[str, Any]) -> None:
    model = ir.from_proto(guarded(**odd))
    assert ops(write_forms(model, EVERY_FORM)) == ops(model)


@pytest.mark.parametrize(("ratio", "kept"), [(SLOWER, False), (UNSURE, False), (FASTER, True)])
def test_the_timing_decides(ratio: PairedRatio, kept: bool) -> None:
    model = analysed("transformer_block").model
    before = ops(model)
    suited, trials = suit_runtime(model, lambda first, second: ratio)
    assert [trial.kept for trial in trials] == [kept] and trials[0].places > 0
    assert (ops(suited) != before) == kept and ops(model) == before


def test_what_has_no_place_for_a_form_is_not_timed() -> None:
    def never(first: ir.Model, second: ir.Model) -> PairedRatio:
        raise AssertionError("timed")

    model = analysed("residual_bn").model
    assert suit_runtime(model, never) == (model, ())
