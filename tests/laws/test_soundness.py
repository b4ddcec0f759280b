"""A small size of `benchmarks.soundness`: pruning is right without a proof, and the oracle tells what is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.random_models import Network
from benchmarks.soundness import FAMILIES, apart, check, outputs, pruned, zeroed
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import load_and_analyze

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_slim_files_are_what_zeroed_weights_are(family: str) -> None:
    tally = check(family, range(9000, 9006), 4)
    assert not tally.wrong and not tally.refused
    assert tally.right == tally.selections >= 12 and tally.unmoved < tally.selections / 2


def test_the_oracle_tells_a_wrong_file() -> None:
    """Rows of one weight in another order: all numbers are still there, and another thing is computed."""
    model = Network(3).over_tokens()
    analyzed = load_and_analyze(model.proto)
    group = next(group for group in analyzed.analysis.groups if group.kind == "ffn")
    slim = pruned(analyzed, Selection({group.id: np.arange(group.units) < group.units - 1}))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32)}
    expected = outputs(zeroed(model, slim), feeds)
    assert apart(expected, outputs(slim, feeds)) < 1e-5
    wrong = onnx.ModelProto()
    wrong.CopyFrom(slim)
    tensor = next(tensor for tensor in wrong.graph.initializer if tensor.name == group.places[-1].name)
    tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=0), tensor.name))
    assert apart(expected, outputs(wrong, feeds)) > 1e-2
