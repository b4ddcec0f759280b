"""The law on random graphs: whatever is put together, what Shrink makes is the masked original."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.lengths import Lengths
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.shrink import shrink
from tests.graphs.random import random_graph
from tests.graphs.selections import parts
from tests.graphs.small import analysed_model

pytestmark = pytest.mark.slow

ROUNDING = 5e-5


@pytest.mark.parametrize("seed", range(48))
def test_shrunk_is_masked(seed: int) -> None:
    analyzed = analysed_model(random_graph(seed, length=10 + seed // 4))
    groups, solution = analyzed.analysis.groups, analyzed.analysis.solution
    for selection in parts(groups, np.random.default_rng(seed)):
        keeps = selection.keeps(groups)
        slim = cleanup(shrink(analyzed.normalized, solution, keeps).model, solution, Lengths(solution, keeps))
        onnx.checker.check_model(ir.to_proto(slim), full_check=True)
        result = verify(analyzed.model, analyzed.normalized, slim, analyzed.analysis, keeps)
        assert result.ok and max(result.max_rel_error, result.normalize_error) < ROUNDING, (selection.keep, result)


def test_there_is_something_to_prune() -> None:
    """Random graphs have groups of many kinds, ragged and inexact ones too: the test above is not empty."""
    groups = [g for seed in range(20) for g in analysed_model(random_graph(seed, length=20)).analysis.groups]
    assert len(groups) > 60
    assert len({group.kind for group in groups}) > 2
    assert any(group.rows for group in groups)
    assert {group.exact for group in groups} == {True, False}
