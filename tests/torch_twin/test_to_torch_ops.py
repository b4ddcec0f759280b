"""Every op with an axis rule as a torch function: what ONNX Runtime computes, and gradients that are finite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.analysis import rules
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.registry import RULES
from prunegraph.runtime.feeds import Feeds, random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.trial_sizes import size_plans
from tests.analysis import rule_cases
from tests.analysis.rule_cases import Case
from tests.analysis.test_rules import feeds, one_node
from tests.graphs import fused as graphs_fused
from tests.graphs import other as graphs_other
from tests.graphs import quant as graphs_quant
from tests.graphs.rules import makers
from tests.torch_twin import torch_cases

torch = pytest.importorskip("torch")

from prunegraph.torch_twin import call, to_torch  # noqa: E402
from prunegraph.torch_twin.registry import TORCH_OPS  # noqa: E402

MAKERS = makers(graphs_fused) | makers(graphs_other) | makers(graphs_quant)
CASES = [case for case in (*rule_cases.CASES, *torch_cases.CASES) if not case.not_run]

ROUNDING = 1e-5
"""Relative to the largest number of an output."""

ROUNDED_STATES = {"dynamic_lstm": 1e-4, "dynamic_lstm_rows": 1e-4}
"""A state of eight bits that lies in the middle between two falls to either side, and the next step is fed with it."""

SIZES = {"batch": 3, "row": 9}

NOT_ON_CPU = ("diffusion_block", "multi_head_packed", "multi_head_packed_kv")
"""ONNX Runtime has no CPU kernel for an op of these; `test_fused_is_plain` has the ops."""


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def check(model: ir.Model, given: Feeds, rounding: float = ROUNDING) -> None:
    """Outputs agree with ONNX Runtime's, and every float input and weight has a finite gradient."""
    with open_session(model, optimize=False) as session:
        expected = run(session, given)
    module = to_torch(model)
    tensors = {name: torch.tensor(array, requires_grad=array.dtype.kind == "f") for name, array in given.items()}
    outputs = call(module, tensors)
    for output, array in zip(outputs.values(), expected, strict=True):
        actual = output.detach().numpy()
        assert actual.shape == array.shape
        scale = float(np.abs(array).max(initial=1e-3)) if array.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(actual, array, rtol=0, atol=rounding * scale)
    sums = [output.sum() for output in outputs.values() if output.requires_grad]
    if sums:
        sum(sums).backward()
    for leaf in (*tensors.values(), *module.parameters()):
        assert leaf.grad is None or bool(torch.isfinite(leaf.grad).all())


def model_of(case: Case) -> ir.Model:
    """The one node, of another domain where its name says so."""
    domain, _, op = case.op.rpartition("::")
    model = one_node(replace(case, op=op))
    if domain:
        model.opset_imports[domain] = 1
        next(iter(model.graph)).domain = domain
    return model


@pytest.mark.parametrize("case", CASES, ids=str)
def test_op(case: Case) -> None:
    check(model_of(case), feeds(case, np.random.default_rng(0)))


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - set(NOT_ON_CPU)))
def test_graph(name: str) -> None:
    """Fused, quantized and rarer ops, in small graphs that the analysis is tested with."""
    model = ir.from_proto(MAKERS[name]())
    (plan,) = next(iter(size_plans(input_specs(model.graph), (SIZES,))))
    check(model, random_feeds(input_specs(model.graph), plan, 0), ROUNDED_STATES.get(name, ROUNDING))


def test_every_op_has_a_function() -> None:
    assert rules
    of_bodies = {(domain, op) for domain, op in RULES if traits_of(op, domain).varies}  # written as Loops before
    assert set(RULES) - of_bodies - set(TORCH_OPS) == set() and {op for _, op in of_bodies} & {"Carried", "Repeat"}
