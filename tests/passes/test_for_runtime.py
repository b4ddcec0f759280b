"""Equal forms: the function stays, a form is written only where a timing says that it is faster."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.bench.stats import PairedRatio
from prunegraph.passes.rewrite.for_runtime import FORMS, suit_runtime, write_forms
from prunegraph.runtime.feeds import random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
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
