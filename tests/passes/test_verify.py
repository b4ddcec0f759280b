"""Verify refuses what it cannot prove, and says which of the three models is at fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto

from prunegraph.analysis.selection import Selection
from prunegraph.errors import VerificationFailed
from prunegraph.passes.prove import verify as prove
from prunegraph.passes.prove.runs import Values
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.shrink import shrink
from prunegraph.runtime.edit import Editor
from tests.graphs.builder import Builder, linear
from tests.graphs.small import analysed, analysed_model

FOUND = "mha"
HALF = Selection({"head.0": np.array([True, False, True])})


def frozen(model: ir.Model) -> ir.Model:
    """A copy that takes a length of 11 for static, as a probe of one size would have it."""
    wrong = model.clone()
    target = next(node for node in wrong.graph if node.op_type == "Reshape").inputs[1]
    assert target is not None and target.const_value is not None and target.name is not None
    lengths = target.const_value.numpy().copy()
    lengths[1] = 11
    target.const_value = ir.tensor(lengths, name=target.name)
    return wrong


@pytest.mark.parametrize(
    ("broken", "message"), [("normalized", "what was analysed"), ("slim", "does not run the slim model")]
)
def test_a_model_that_runs_at_one_size_alone_is_no_proof(broken: str, message: str) -> None:
    analyzed = analysed(FOUND)
    keeps = HALF.keeps(analyzed.analysis.groups)
    slim = shrink(analyzed.normalized, analyzed.analysis.solution, keeps).model
    models = {"normalized": analyzed.normalized, "slim": slim}
    models[broken] = frozen(models[broken])
    with pytest.raises(VerificationFailed, match=message) as caught:
        verify(analyzed.model, models["normalized"], models["slim"], analyzed.analysis, keeps)
    assert caught.value.hint


def test_another_choice_of_the_same_size_is_noticed() -> None:
    analyzed = analysed(FOUND)
    other = Selection({"head.0": np.array([True, True, False])}).keeps(analyzed.analysis.groups)
    slim = shrink(analyzed.normalized, analyzed.analysis.solution, other).model
    proof = verify(analyzed.model, analyzed.normalized, slim, analyzed.analysis, HALF.keeps(analyzed.analysis.groups))
    assert not proof.ok and proof.max_rel_error > 1e-3


def near_ties() -> onnx.ModelProto:
    """A detector's tail: the best two of scores that are equal to rounding, and what is chosen by them."""
    g = Builder("near_ties")
    h = g("Relu", linear(g, g.input("x", "B", "T", 6), "up", 6, 8))
    one = g("MatMul", h, g.weight("w_score", 8, 1))
    scores = g("Add", g("Tile", one, [1, 1, 9]), np.linspace(0, 3e-7, 9, dtype=np.float32))
    _, best = g("TopK", scores, [2], n=2, axis=-1)
    g.output(best, "B", "T", 2, dtype=TensorProto.INT64)
    return g.model()


def test_what_rounding_chooses_is_compared_before_the_choice() -> None:
    analyzed = analysed_model(near_ties())
    selection = Selection({g.id: np.arange(g.units) < g.units // 2 for g in analyzed.analysis.groups})
    keeps = selection.keeps(analyzed.analysis.groups)
    slim = shrink(analyzed.normalized, analyzed.analysis.solution, keeps).model
    choice = next(node for node in slim.graph if node.op_type == "TopK")
    scores = choice.inputs[0]
    assert scores is not None
    here = Editor(slim.graph).at(choice).before()
    choice.replace_input_with(0, here.add("Log", here.add("Exp", scores)))  # nothing, but for rounding
    proof = verify(analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps)
    assert proof.ok and proof.compared_before == (choice.name,), proof
    weight = slim.graph.initializers["w_score"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.roll(weight.const_value.numpy(), 1, axis=0), name="w_score")
    assert not verify(analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps).ok


def test_a_fault_of_the_optimizer_is_named_and_not_blamed_on_the_slim_model(monkeypatch: pytest.MonkeyPatch) -> None:
    analyzed = analysed(FOUND)
    keeps = HALF.keeps(analyzed.analysis.groups)
    slim = shrink(analyzed.normalized, analyzed.analysis.solution, keeps).model
    runs = prove.run_all

    def faulty(model: ir.Model, *arguments: Any, optimize: bool = True, **limits: Any) -> list[Values]:
        outputs_of_runs = runs(model, *arguments, optimize=optimize, **limits)
        narrow = model.graph.initializers["w_q"].const_value if "w_q" in model.graph.initializers else None
        if optimize and narrow is not None and narrow.shape[-1] < 12:
            return [{name: array * 2 for name, array in values.items()} for values in outputs_of_runs]
        return outputs_of_runs

    monkeypatch.setattr(prove, "run_all", faulty)
    proof = verify(analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps)
    assert proof.ok and f"ONNX Runtime {onnxruntime.__version__}" in proof.notes[0], proof
