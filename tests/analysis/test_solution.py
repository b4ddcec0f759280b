"""The solution is plain data, and a bug in a rule is no answer of the rule."""

from __future__ import annotations

import logging
import pickle

import onnx
import pytest

from prunegraph.analysis import registry, solve
from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.relations import AxisRule, CannotAnalyze, NodeView
from tests.graphs.builder import Builder
from tests.graphs.small import analysed_model


def attention() -> onnx.ModelProto:
    """Two heads of three dims, then an FFN."""
    g = Builder("small_attention")
    x = g.input("x", "batch", "row", 6)
    q, k, v = (g("Reshape", g("MatMul", x, g.weight(f"w{n}", 6, 6)), [0, -1, 2, 3]) for n in "qkv")
    q, v = (g("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 2, 3, 1])), axis=-1)
    context = g("Reshape", g("Transpose", g("MatMul", scores, v), perm=[0, 2, 1, 3]), [0, -1, 6])
    h = g("Relu", g("MatMul", g("MatMul", context, g.weight("wo", 6, 5)), g.weight("up", 5, 8)))
    g.output(g("MatMul", h, g.weight("down", 8, 4)), None, None, 4)
    return g.model()


def analysis() -> Analysis:
    return analysed_model(attention()).analysis


def test_an_analysis_is_pickled_compared_and_hashed() -> None:
    """Worth sending to another process, or keeping as a key."""
    first, again = analysis(), analysis()
    copy = pickle.loads(pickle.dumps(first))
    assert first == again == copy
    assert len({first, again, copy}) == 1
    axes = [str(first.render(axis)) for axis in first.solution.resolve("wq")]
    assert axes == [str(copy.render(axis)) for axis in copy.solution.resolve("wq")]
    assert list(first.solution.contractions()) == list(copy.solution.contractions())
    other = copy.solution.rules[0]
    assert copy.solution.leaves_of(0, [e for pair in other.equal for e in pair])  # axes of no operand among them


def test_what_is_printed_of_it_is_short() -> None:
    analysis_of_model = analysis()
    assert repr(analysis_of_model).startswith("Analysis(1 head, 1 qk_dim, 1 v_dim, ")
    assert len(repr(analysis_of_model)) < 200
    assert len(repr(analysis_of_model.solution)) < 200


def test_contractions_are_resolved() -> None:
    """Queries meet keys head by head; the FFN is made by one weight and summed by the next."""
    analysis_of_model = analysis()
    group = {g.kind: g for g in analysis_of_model.groups}
    scores, mixed = (site for site in analysis_of_model.solution.contractions() if site.of_activations)
    assert group["head"].dim in scores.batch
    assert scores.summed == {group["qk_dim"].dim}
    assert group["v_dim"].dim in mixed.operands[1].leaves
    sums = [site for site in analysis_of_model.solution.contractions() if group["ffn"].dim in site.summed]
    [down] = sums
    assert down.weight is not None
    assert down.activation is not None
    assert (down.weight.value, down.weight.summed, down.weight.free) == ("down", (0,), (1,))
    assert (down.activation.summed, down.activation.free) == ((2,), (0, 1))


def broken(node: NodeView) -> AxisRule:
    return node.attributes["nothing"]  # type: ignore[no-any-return]


def unable(node: NodeView) -> AxisRule:
    raise CannotAnalyze(f"{node.op} of this kind")


def pins_of_relu(rule: registry.Rule, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry.RULES, ("", "Relu"), rule)
    return " ".join(str(pin) for axis in analysis().pinned for pin in axis.pins)


def test_a_bug_in_a_rule_is_an_error_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match="nothing"):
        pins_of_relu(broken, monkeypatch)


def test_a_bug_in_a_rule_is_a_logged_pin_for_users(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(solve, "STRICT", False)
    with caplog.at_level(logging.WARNING):
        assert "the axis rule of Relu failed: 'nothing'" in pins_of_relu(broken, monkeypatch)
    assert "the axis rule of Relu failed at" in caplog.text


def test_a_rule_that_cannot_tell_pins(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert "Relu could not be understood: Relu of this kind" in pins_of_relu(unable, monkeypatch)
    assert not caplog.text
