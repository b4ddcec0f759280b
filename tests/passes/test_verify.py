"""Verify refuses what it cannot prove, and says which of the three models is at fault."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.errors import VerificationFailed
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.shrink import shrink
from tests.graphs.small import analysed

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
    found = analysed(FOUND)
    keeps = HALF.keeps(found.analysis.groups)
    slim = shrink(found.normalized, found.analysis.solution, keeps).model
    models = {"normalized": found.normalized, "slim": slim}
    models[broken] = frozen(models[broken])
    with pytest.raises(VerificationFailed, match=message) as caught:
        verify(found.model, models["normalized"], models["slim"], found.analysis, keeps)
    assert caught.value.hint


def test_another_choice_of_the_same_size_is_noticed() -> None:
    found = analysed(FOUND)
    other = Selection({"head.0": np.array([True, True, False])}).keeps(found.analysis.groups)
    slim = shrink(found.normalized, found.analysis.solution, other).model
    proof = verify(found.model, found.normalized, slim, found.analysis, HALF.keeps(found.analysis.groups))
    assert not proof.ok and proof.max_rel_error > 1e-3
