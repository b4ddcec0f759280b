"""On what the proof runs: other numbers where the original makes none, the same noise, the caller's data and sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from prunegraph import prune_graph
from prunegraph.analysis.selection import Selection
from prunegraph.errors import PruneGraphError
from prunegraph.passes.prove.trial_inputs import trial_inputs
from prunegraph.passes.prove.verify import Verification, verify
from prunegraph.runtime.limits import TRIAL, Limits, TooLarge
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder, linear
from tests.graphs.small import analysed_model
from tests.laws.test_laws import slim


def ffn(g: Builder, x: str) -> str:
    return linear(g, g("Relu", linear(g, x, "up", 6, 8)), "down", 8, 6)


def proof(proto: onnx.ModelProto, **more: object) -> Verification:
    """Half of every group removed, and compared."""
    analyzed = analysed_model(proto)
    assert analyzed.analysis.groups
    selection = Selection({g.id: np.indices(g.shape)[-1] < g.units // 2 for g in analyzed.analysis.groups})
    keeps = selection.keeps(analyzed.analysis.groups)
    return verify(analyzed.model, analyzed.normalized, slim(analyzed, selection), analyzed.analysis, keeps, **more)  # type: ignore[arg-type]


def hidden_rows() -> onnx.ModelProto:
    """A mask of truths that hides where it is true: of ones nothing is left."""
    g = Builder("hidden_rows")
    x, hide = g.input("x", "B", "T", 6), g.input("hide", "B", "T", dtype=TensorProto.BOOL)
    scores = g("Where", hide, -np.ones(1, "f4") * np.inf, g("ReduceSum", ffn(g, x), [2], keepdims=0))
    g.output(g("Softmax", scores, axis=-1), "B", "T")
    return g.model()


def logarithm() -> onnx.ModelProto:
    g = Builder("logarithm")
    g.output(ffn(g, g("Log", g.input("x", "B", 6))), "B", 6)
    return g.model()


def above_one() -> onnx.ModelProto:
    g = Builder("above_one")
    g.output(ffn(g, g("Acosh", g.input("x", "B", 6))), "B", 6)
    return g.model()


def chosen_rows() -> onnx.ModelProto:
    """The mean of what is above a threshold: of nothing it is no number."""
    g = Builder("chosen_rows")
    x = g.input("x", "B", 6)
    above = g("Cast", g("Greater", g("ReduceMin", x, axes=[1], keepdims=1), 0.1), to=TensorProto.FLOAT)
    summed = g("ReduceSum", g("Mul", ffn(g, x), above), [0], keepdims=0)
    g.output(g("Div", summed, g("ReduceSum", above, [0], keepdims=0)), 6)
    return g.model()


@pytest.mark.parametrize("make", [hidden_rows, logarithm, above_one, chosen_rows])
def test_other_numbers_are_tried_where_the_original_makes_none(make: Callable[[], onnx.ModelProto]) -> None:
    verification = proof(make())
    assert verification.ok and not verification.notes and verification.moved > 1e-3


def test_a_model_that_makes_nothing_but_nan_is_refused_with_that_reason() -> None:
    g = Builder("nan_always")
    x = ffn(g, g.input("x", "B", 6))
    g.output(g("Sqrt", g("Sub", g("Mul", g("Tanh", x), 0.5), 4.0)), "B", 6)
    with pytest.raises(PruneGraphError, match="not finite") as caught:
        proof(g.model())
    assert "--data" in caught.value.hint


def test_numbers_that_are_none_in_some_places_are_so_in_both() -> None:
    g = Builder("nan_sometimes")
    x = g.input("x", "B", 6)
    y = ffn(g, x)
    g.output(g("Concat", y, g("Log", g("Mul", g("Tanh", y), g("Abs", x))), axis=1), "B", 12)
    verification = proof(g.model())
    assert verification.ok and "not finite" in verification.notes[0]


def noisy(op: str, **attributes: object) -> onnx.ModelProto:
    g = Builder(f"noisy_{op}")
    h = linear(g, g.input("x", "B", 6), "up", 6, 8)
    if op == "Dropout":
        h = g("Dropout", h, 0.5, g.const("train", True))
    elif op == "Bernoulli":
        h = g("Mul", h, g("Bernoulli", g("Sigmoid", h)))
    elif op.endswith("Like"):
        h = g("Add", h, g(op, h, **attributes))
    else:
        h = g("Add", h, g(op, shape=[1, 8], **attributes))
    g.output(linear(g, g("Relu", h), "down", 8, 6), "B", 6)
    return g.model()


@pytest.mark.parametrize("op", ["Dropout", "Bernoulli", "RandomNormalLike", "RandomUniformLike", "RandomNormal"])
def test_noise_is_the_same_in_all_copies(op: str) -> None:
    model = noisy(op)
    if analysed_model(model).analysis.groups:
        assert proof(model).ok


def test_sizes_and_data_are_the_callers() -> None:
    g = Builder("sized")
    g.output(ffn(g, g.input("x", "B", "T", 6)), "B", "T", 6)
    model = ir.from_proto(g.model())
    name = model.graph.outputs[0].name or ""
    assert [feed["x"].shape[0] for feed in trial_inputs(model, [name], None, {"B": 1}).feeds] == [1, 1]
    assert trial_inputs(model, [name], None).light["x"].shape == (1, 17, 6)
    ones = [{"x": np.ones((2, 4, 6), np.float32)}] * 3
    assert trial_inputs(model, [name], ones).light is ones[0]
    feeds = trial_inputs(model, [name], ones).feeds
    assert [feed["x"].shape for feed in feeds[:2]] == [(2, 4, 6)] * 2
    assert feeds[-1]["x"].shape[1] > 100  # and random ones, at a length that nobody gave


def with_a_loop(turns_while: str, *, at_the_end: bool = False) -> onnx.ModelProto:
    """A loop that ends at once where the first number is 1, as it is while shapes are learnt."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", [turns_while], ["on"]),
            helper.make_node("Identity", ["carried"], ["next"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, None),
        ],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    g = Builder("with_a_loop")
    x = g.input("x", "B", 6)
    first = g("Squeeze", g("Slice", x, [0, 0], [1, 1], [0, 1]), [0, 1])
    g.const("never", False)
    g.nodes.append(helper.make_node("Not", [g("Equal", first, 1.0)], ["other"]))
    turns, yes = g.const("turns", np.array(2**62)), g.const("yes", np.array(True))
    g.nodes.append(helper.make_node("Loop", [turns, yes, ffn(g, x) if at_the_end else x], ["looped"], body=body))
    g.output("looped" if at_the_end else ffn(g, "looped"), "B", 6)
    return g.model()


def test_a_proof_of_a_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proof(with_a_loop("never")).ok
    monkeypatch.setattr("prunegraph.passes.prove.limits.SECONDS_A_TRIAL", 0.3)
    with pytest.raises(PruneGraphError, match=r"did not end within 0\.3 seconds") as caught:
        proof(with_a_loop("other"))
    assert "--no-verify" in caught.value.hint and "--size" in caught.value.hint
    feeds = [{"x": np.ones((2, 6), np.float32)}]
    assert proof(with_a_loop("other"), feeds=feeds).ok  # on which it ends


def test_where_trials_do_not_end_data_have_a_limit_of_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunegraph.passes.normalize.trial.TRIAL", Limits(memory=True, seconds=0.2))
    monkeypatch.setattr("prunegraph.passes.prove.trial_inputs.SECONDS_A_TRIAL", 0.3)
    monkeypatch.setattr("prunegraph.analyzed.SECONDS_A_TRIAL", 0.3)
    feeds = {"x": np.ones((2, 6), np.float32)}
    for scorer in ("magnitude", "activation"):  # it is the proof that runs first, and the scorer
        with pytest.raises(PruneGraphError, match=r"did not end within 0\.3 seconds"):
            prune_graph(with_a_loop("yes", at_the_end=True), {"ffn": 0.5}, scorer=scorer, data=feeds)


FEW = "prunegraph.passes.prove.limits.BYTES_FED", 3000
FEW_INSIDE = "prunegraph.passes.prove.limits.BYTES_COMPARED", 2000


def wide(*dims: int | str) -> onnx.ModelProto:
    g = Builder("wide")
    h = g("Relu", linear(g, g.input("x", *dims, 6), "up", 6, 8))
    g.output(g("ReduceSum", linear(g, h, "down", 8, 6), [1], keepdims=0), dims[0], 6)
    return g.model()


@pytest.mark.parametrize("limit", [FEW, FEW_INSIDE], ids=["fed", "compared"])
def test_a_proof_takes_smaller_inputs_where_the_usual_ones_take_too_much_memory(
    limit: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*limit)
    verification = proof(wide("B", "T"))
    assert verification.ok and verification.runs == 1 and verification.moved > 1e-3


@pytest.mark.parametrize(
    ("limit", "what"), [(FEW, "its inputs alone take"), (FEW_INSIDE, "the values that are compared take")]
)
def test_a_proof_of_inputs_that_are_declared_too_long_is_refused(
    limit: tuple[str, int], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*limit)
    model = wide("B", 1 << 10)
    with pytest.raises(PruneGraphError, match=what) as caught:
        proof(model)
    assert "--no-verify" in caught.value.hint
    feeds = [{"x": np.ones((1, 1 << 10, 6), np.float32)}]
    assert proof(model, feeds=feeds).ok  # the caller's inputs take what they take


def test_a_run_beyond_the_memory_of_a_trial_says_so() -> None:
    g = Builder("huge")
    h = g("Expand", g.input("x", 1), g.const("lengths", [1 << 31]))
    g.output(g("ReduceSum", h), 1)
    with (
        open_session(ir.from_proto(g.model()), optimize=False, trial=True) as session,
        pytest.raises(TooLarge, match="more than 3 GiB"),
    ):
        run(session, {"x": np.ones(1, np.float32)}, limits=TRIAL)
