"""The proof could have seen it: slim models with one weight tampered with are refused, every weight of many graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.passes.prove import inner
from prunegraph.passes.prove.inner import rewritten_weights
from prunegraph.passes.prove.verify import verify
from prunegraph.runtime import limits
from tests.graphs.builder import Builder, conv
from tests.graphs.small import Analysed, analysed, analysed_model
from tests.laws.test_laws import slim

pytestmark = pytest.mark.slow

GRAPHS = [
    *("mha", "fused_qkv", "packed_3hd", "rope_half", "gqa", "bias_table", "cross_attention", "norm_of_heads"),
    *("transformer_block", "mixer", "window_attention", "residual_bn", "c2f", "transposed_grouped", "channel_shuffle"),
    *("depthwise", "densenet", "group_norm_op", "packed_gate_up", "rms_norm_decomposed", "tied_embeddings", "mixture"),
]


def saturated() -> Analysed:
    """A text detector: its output is 0 after the sigmoid, whatever comes in."""
    g = Builder("saturated")
    h = g("Relu", conv(g, g.input("x", "B", 3, "H", "W"), "first", 3, 16))
    h = g("Relu", conv(g, h, "second", 16, 16))
    y = g("Conv", h, g.weight("w_last", 1, 16, 1, 1), g.const("b_last", [-500.0], np.float32))
    g.output(g("Sigmoid", y), "B", 1, "H", "W")
    return analysed_model(g.model())


def half(analyzed: Analysed) -> Selection:
    """Half of every group, two units at least where a mean is taken."""
    rng = np.random.default_rng(3)
    least = {g.id: max(g.least, 1 if g.exact else 2, g.units // 2) for g in analyzed.analysis.groups}
    return Selection(
        {
            g.id: rng.random(g.shape).argsort(-1).argsort(-1) < least[g.id]
            for g in analyzed.analysis.groups
            if g.units > least[g.id]
        }
    )


def rolled(array: np.ndarray) -> np.ndarray:
    """What stays, in another order."""
    return np.roll(array, 1, axis=int(np.argmax(array.shape)))


def one_off(array: np.ndarray) -> np.ndarray:
    """One number is another."""
    other = array.copy()
    other.flat[array.size // 2] += np.array(0.5, array.dtype)
    return other


def tampered(
    analyzed: Analysed, model: ir.Model, how: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[str, ir.Model]]:
    """Copies of a slim model with other numbers in one weight."""
    for name in rewritten_weights(model.graph, analyzed.normalized.graph):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        array = tensor.numpy()
        wrong = how(array)
        if not np.allclose(wrong.astype(np.float64), array.astype(np.float64), rtol=1e-2):
            twin = model.clone()
            twin.graph.initializers[name].const_value = ir.tensor(wrong, dtype=tensor.dtype, name=name)
            yield name, twin


def reasons(analyzed: Analysed, how: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Why tampered models are refused; none may pass."""
    selection = half(analyzed)
    model, keeps = slim(analyzed, selection), selection.keeps(analyzed.analysis.groups)
    proof = verify(analyzed.model, analyzed.normalized, model, analyzed.analysis, keeps)
    assert proof.ok and not proof.unseen, proof
    refused = []
    for name, wrong in tampered(analyzed, model, how):
        proof = verify(analyzed.model, analyzed.normalized, wrong, analyzed.analysis, keeps)
        assert not proof.ok and proof.reason, name
        refused.append(proof.reason)
    return refused


@pytest.mark.parametrize("name", GRAPHS)
def test_running_it_shows_every_tampered_weight(name: str) -> None:
    shown = reasons(analysed(name), rolled)
    assert len(shown) >= 2 and all("differs by" in reason for reason in shown), shown


@pytest.mark.parametrize("name", ["fused_qkv", "residual_bn"])
def test_neither_parts_nor_weights_that_are_not_held_twice_hide_any(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    analyzed = analysed(name)
    whole = reasons(analyzed, rolled)
    monkeypatch.setattr(limits, "BYTES_OF_INNER", 1)
    monkeypatch.setattr(inner, "LARGE", 0)
    assert len(reasons(analyzed, rolled)) == len(whole)


@pytest.mark.parametrize("name", ["mha", "c2f"])
def test_what_is_seen_is_the_same_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    analyzed = analysed(name)
    selection = half(analyzed)
    keeps = selection.keeps(analyzed.analysis.groups)
    whole = verify(analyzed.model, analyzed.normalized, slim(analyzed, selection), analyzed.analysis, keeps)
    monkeypatch.setattr(limits, "BYTES_OF_INNER", 1)
    monkeypatch.setattr(inner, "LARGE", 0)
    parts = verify(analyzed.model, analyzed.normalized, slim(analyzed, selection), analyzed.analysis, keeps)
    assert parts == whole


def test_a_number_that_no_input_reads_is_no_other_either() -> None:
    """A table of positions is longer than the sequences that are tried."""
    shown = reasons(analysed("rope_half"), one_off)
    assert any("does not hold the numbers" in reason for reason in shown), shown


def test_values_inside_show_what_no_output_tells() -> None:
    analyzed = saturated()
    selection = half(analyzed)
    keeps = selection.keeps(analyzed.analysis.groups)
    proof = verify(analyzed.model, analyzed.normalized, slim(analyzed, selection), analyzed.analysis, keeps)
    assert proof.ok and {group.seen.split()[0] for group in proof.groups} == {"inside"}
    shown = reasons(analyzed, rolled)
    assert len(shown) >= 3 and all("differs by" in reason for reason in shown), shown
