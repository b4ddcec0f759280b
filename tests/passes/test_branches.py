"""Ifs that always go one way, and branches that hand out what is not theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph import prune_graph
from prunegraph.cli import app
from prunegraph.errors import UsageError
from prunegraph.passes.normalize import normalize
from prunegraph.passes.normalize.constant_conditions import constant_conditions
from prunegraph.passes.normalize.fix_inputs import fix_inputs
from prunegraph.passes.normalize.infer import infer
from prunegraph.passes.normalize.probe import _attempts as attempts
from prunegraph.passes.normalize.trial import Trial
from prunegraph.passes.prove.mask import masked
from prunegraph.passes.rewrite.cleanup.identities import remove_identities
from prunegraph.runtime.trial_sizes import empty_pasts
from tests.graphs import branches
from tests.graphs.run import outputs

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
value, node = helper.make_tensor_value_info, helper.make_node
RNG = np.random.default_rng(0)


def branch(
    output: str, *nodes: onnx.NodeProto, rank: int = 2, weights: dict[str, np.ndarray] | None = None
) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    return helper.make_graph(nodes, output, [], [value(output, FLOAT, [None] * rank)], tensors)


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    condition: bool,
    output: str = "y",
    constants: dict[str, np.ndarray] | None = None,
    more: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """`x[b, 8]` through 12 neurons to `w[b, 5]`, and what `nodes` make of that."""
    weights = {"up": RNG.normal(size=(8, 12)), "down": RNG.normal(size=(12, 5))}
    first = [node("MatMul", ["x", "up"], ["u"]), node("Relu", ["u"], ["v"]), node("MatMul", ["v", "down"], ["w"])]
    tensors = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()]
    tensors += [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    inputs = [value("x", FLOAT, ["b", 8]), *([value("c", BOOL, [])] if condition else []), *more]
    graph = helper.make_graph([*first, *nodes], "g", inputs, [value(output, FLOAT, ["b", 5])], tensors)
    model_made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model_made)
    return model_made


def handing_out(count: int) -> onnx.ModelProto:
    ifs = [
        node(
            "If",
            ["c"],
            [f"z{k}"],
            then_branch=branch(f"t{k}", node("Neg", ["w"], [f"t{k}"])),
            else_branch=branch(f"e{k}", node("Identity", ["w"], [f"e{k}"])),
        )
        for k in range(count)
    ]
    return model([*ifs, node("Sum", [f"z{k}" for k in range(count)], ["y"])], condition=True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_branches_that_hand_out_an_outer_value_stay_legal(count: int) -> None:
    result = prune_graph(handing_out(count), {"ffn": 0.5})
    assert [(g.before, g.after) for g in result.report.groups] == [(12, 6)]
    slim = ir.to_proto(result.ir_model)
    onnx.checker.check_model(slim, full_check=True)
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    yes, no = (outputs(slim, {"x": x, "c": np.array(c)})[0] for c in (True, False))
    np.testing.assert_allclose(yes, -no, rtol=1e-5)


def test_identities_between_values_of_one_graph_go() -> None:
    nodes = [node("Identity", ["w"], ["w1"]), node("Tanh", ["w1"], ["w2"]), node("Identity", ["w2"], ["y"])]
    given = model(nodes, condition=False)
    model_made = ir.from_proto(given)
    remove_identities(model_made)
    assert [each.op_type for each in model_made.graph] == ["MatMul", "Relu", "MatMul", "Tanh"]
    assert [each.name for each in model_made.graph.outputs] == ["y"]
    x = RNG.normal(size=(2, 8)).astype(np.float32)
    np.testing.assert_array_equal(outputs(model_made, {"x": x})[0], outputs(given, {"x": x})[0])


def squeeze_or_not(cond: str) -> onnx.NodeProto:
    """As the tracing exporter writes `squeeze(1)`: one branch squeezes, one is an Identity; weights inside, too."""
    scale = node("Constant", [], ["scale"], value_floats=RNG.normal(size=5).tolist())
    axes = node("Constant", [], ["axes"], value_ints=[1])
    then = branch("t", axes, scale, node("Squeeze", ["w3", "axes"], ["s"]), node("Mul", ["s", "scale"], ["t"]))
    return node("If", [cond], ["y"], then_branch=then, else_branch=branch("e", node("Identity", ["w3"], ["e"]), rank=3))


def constants() -> dict[str, np.ndarray]:
    return {"one": np.array([1]), "one_scalar": np.array(1), "index": np.array(1), "yes": np.array(True)}


LEADING = [node("Unsqueeze", ["w", "one"], ["w3"])]
ASKED = [
    node("Shape", ["w3"], ["shape"]),
    node("Gather", ["shape", "index"], ["length"]),
    node("Equal", ["length", "one_scalar"], ["is_one"]),
]


@pytest.mark.parametrize(
    ("before", "condition"), [([], "yes"), (ASKED, "is_one")], ids=["a constant", "a length that is static"]
)
def test_an_if_that_always_goes_one_way_is_inlined(before: list[onnx.NodeProto], condition: str) -> None:
    model_made = model([*LEADING, *before, squeeze_or_not(condition)], condition=False, constants=constants())
    normal = normalize(ir.from_proto(model_made))
    assert all(each.op_type != "If" for each in normal.model.graph)
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(outputs(normal.model, {"x": x})[0], outputs(model_made, {"x": x})[0], rtol=1e-6)
    result = prune_graph(model_made, {"ffn": 0.5})
    assert [(g.before, g.after) for g in result.report.groups] == [(12, 6)]


def test_an_if_whose_condition_hangs_on_a_branch_is_inlined_too() -> None:
    """As torch writes `scatter_reduce`: the rank of what the layer before it made, by way of an If, is asked for."""
    nodes, last = [], "w"
    for k in range(3):
        asked = [node("Shape", [last], [f"shape{k}"]), node("Size", [f"shape{k}"], [f"rank{k}"])]
        yes = branch(f"t{k}", node("Unsqueeze", [last, "one"], [f"t{k}"]), rank=3)
        no = branch(f"e{k}", node("Relu", [last], [f"e{k}"]), rank=2)
        choice = node("If", [f"is{k}"], [f"y{k}"], then_branch=yes, else_branch=no)
        nodes += [*asked, node("Equal", [f"rank{k}", "zero"], [f"is{k}"]), choice]
        last = f"y{k}"
    nodes[-1].output[0] = "y"
    normal = normalize(
        ir.from_proto(model(nodes, condition=False, constants={"zero": np.array(0), "one": np.array([1])}))
    )
    assert [each.op_type for each in normal.model.graph].count("If") == 0


def test_nested_ifs_are_inlined_and_names_stay_unique() -> None:
    inner = node(
        "If",
        ["yes"],
        ["t"],
        then_branch=branch("w9", node("Neg", ["v2"], ["w9"])),
        else_branch=branch("e2", node("Abs", ["v2"], ["e2"])),
    )
    then = branch("t", node("Relu", ["w"], ["v2"]), inner)
    outer = node("If", ["yes"], ["y"], then_branch=then, else_branch=branch("e", node("Identity", ["w"], ["e"])))
    model_made = model([outer], condition=False, constants={"yes": np.array(True)})
    normal = ir.to_proto(normalize(ir.from_proto(model_made)).model)
    onnx.checker.check_model(normal)
    names = [name for each in normal.graph.node for name in each.output]
    assert len(names) == len(set(names)) and all(each.op_type != "If" for each in normal.graph.node)
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(outputs(normal, {"x": x})[0], outputs(model_made, {"x": x})[0], rtol=1e-6)


def test_a_branch_that_hands_out_an_outer_value_as_the_output_is_inlined() -> None:
    outer = node(
        "If",
        ["yes"],
        ["y"],
        then_branch=branch("t", node("Identity", ["w"], ["t"])),
        else_branch=branch("e", node("Neg", ["w"], ["e"])),
    )
    model_made = model([outer], condition=False, constants={"yes": np.array(True)})
    result = prune_graph(model_made, {"ffn": 0.5})
    assert [each.name for each in result.ir_model.graph.outputs] == ["y"]
    assert all(each.op_type != "If" for each in result.ir_model.graph)


def test_an_if_that_hangs_on_an_input_stays() -> None:
    model_made = model([*LEADING, squeeze_or_not("c")], condition=True, constants=constants())
    assert any(each.op_type == "If" for each in normalize(ir.from_proto(model_made)).model.graph)


# ---- branches that hold weights --------------------------------------------------------------------------------------


def both_ways(decoder: onnx.ModelProto) -> list[list[np.ndarray]]:
    """What a graph of `tests.graphs.branches` makes with its condition true, and false."""
    rng = np.random.default_rng(3)
    lengths = {"B": 2, "S": 3, "T": 5, "C": 5, "P": 4}
    feeds = {}
    for each in decoder.graph.input:
        dims = [dim.dim_value or lengths[dim.dim_param] for dim in each.type.tensor_type.shape.dim]
        feeds[each.name] = rng.normal(size=dims).astype(np.float32)
    return [outputs(decoder, {**feeds, "use_cache": np.array([flag])}) for flag in (True, False)]


@pytest.mark.parametrize("make", branches.BRANCHES)
def test_branches_are_pruned_alike_and_put_back(make: Callable[[], onnx.ModelProto]) -> None:
    """The slim model has its If, runs one branch alone, and is the masked original whichever is taken."""
    proto = make()
    graph = pg.analyze(proto)
    result = pg.prune_graph(proto, dict.fromkeys({group.kind for group in graph.groups}, 0.5))
    slim = ir.to_proto(result.ir_model)
    onnx.checker.check_model(slim, full_check=True)
    assert not slim.functions and [each.op_type for each in slim.graph.node].count("If") == 1
    keeps = result.selection.keeps(graph.groups)
    oracle = ir.to_proto(masked(graph.normalized.model, graph.solution, keeps))
    for left, right in zip(both_ways(slim), both_ways(oracle), strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert {group.id for group in graph.groups} == result.selection.keep.keys()


def test_what_one_branch_alone_needs_is_computed_there() -> None:
    slim = prune_graph(branches.merged_decoder(), {"ffn": 0.5}).model
    (the_if,) = (each for each in slim.graph.node if each.op_type == "If")
    inside = {a.name: [n.op_type for n in a.g.node] for a in the_if.attribute}
    assert inside["then_branch"].count("Concat") == 2 and "Concat" not in inside["else_branch"]
    assert all(ops.count("Softmax") == 2 for ops in inside.values())


def test_repaired_branches_are_put_back_too() -> None:
    x = np.random.default_rng(0).normal(size=(32, 3, 7)).astype(np.float32)
    data = pg.Data({"x": x, "use_cache": np.ones(32, bool)}, batch_size=8)
    result = pg.prune_graph(branches.shared_branches(), {"ffn": 0.5}, data=data, after=pg.Repair("lstsq"))
    assert result.report.repair is not None and "w_ffn_down" in result.report.repair.written.changed
    slim = ir.to_proto(result.ir_model)
    assert not slim.functions and [each.op_type for each in slim.graph.node].count("If") == 1


def test_a_wrong_weight_of_either_branch_is_seen() -> None:
    original = branches.own_branches()
    result = prune_graph(original, {"ffn": 0.5})
    for name in ("w_one_up", "w_two_up", "w_two_down"):
        slim = ir.to_proto(result.ir_model)
        (tensor,) = (each for each in slim.graph.initializer if each.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, name))
        assert not pg.verify(original, slim, result.selection).ok


def test_a_branch_that_does_not_run_where_the_other_is_taken_stays_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is flattened that a model at its sizes cannot compute; the pin names the node inside."""
    wide = RNG.normal(size=(7, 5)).astype(np.float32)
    then = branch("t", node("MatMul", ["w", "wide"], ["t"], name="too_wide"), weights={"wide": wide})
    outer = node("If", ["c"], ["y"], then_branch=then, else_branch=branch("e", node("Neg", ["w"], ["e"])), name="outer")
    model_made = model([outer], condition=True)
    pins = {str(pin) for entry in pg.analyze(model_made).pins for pin in entry.pins}
    assert any("captured by the body of If (outer: too_wide)" in pin for pin in pins)


def test_branches_that_want_masks_of_other_lengths_are_pruned_alike() -> None:
    """One input is as long as the sequence or as past and sequence: only an empty past suits both branches."""
    original = branches.masked_decoder()
    result = prune_graph(original, {"head": 0.34}, scope=pg.Scope(allow_io=("past_*", "if*")))
    assert [(g.before, g.after) for g in result.report.groups] == [(3, 2)]
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3
    (kept,) = result.selection.keep.values()
    zeroed = onnx.ModelProto.FromString(original.SerializeToString())
    (out,) = (each for each in zeroed.graph.initializer if each.name == "w_self_o")
    out.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(out) * np.repeat(kept, 4)[:, None], "w_self_o"))
    slim = ir.to_proto(result.ir_model)
    past = {name: RNG.normal(size=(2, 3, 5, 4)).astype(np.float32) for name in ("past_k", "past_v")}
    x = RNG.normal(size=(2, 3, 7)).astype(np.float32)
    for cached, length in ((True, 8), (False, 3)):
        feeds = {"x": x, "mask": np.ones((2, length), np.float32), "use_cache": np.array([cached]), **past}
        cut = {**feeds, **{name: array[:, kept] for name, array in past.items()}}
        whole, left = outputs(zeroed, feeds), outputs(slim, cut)
        np.testing.assert_allclose(left[0], whole[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(left[1], whole[1][:, kept], rtol=1e-4, atol=1e-5)


def test_an_empty_past_is_tried() -> None:
    """The mask of the cached branch covers past and sequence, that of the other one the sequence alone."""
    trial = Trial.of(ir.from_proto(branches.masked_decoder()))
    assert empty_pasts(trial.specs) == {"past": 0} and empty_pasts(trial.specs, {"past": 3}) == {}
    assert any(plan[0]["past"] == 0 and plan[1]["S"] == 23 for plan, _ in attempts(trial, {}, {}, {}))


def test_a_name_may_stand_in_both_branches() -> None:
    """Shape inference of ONNX keeps small values by name, and fails at the second one."""
    shape = node("Shape", ["w"], ["lengths"])
    then = branch("t", shape, node("Neg", ["w"], ["n"]), node("Reshape", ["n", "lengths"], ["t"]))
    other = branch("e", shape, node("Abs", ["w"], ["n"]), node("Reshape", ["n", "lengths"], ["e"]))
    model_made = ir.from_proto(model([node("If", ["c"], ["y"], then_branch=then, else_branch=other)], condition=True))
    assert Trial.of(model_made).can_infer([({"b": 2},)])
    trial = Trial.of(model_made).infer(({"b": 2},))
    assert trial[0].shapes["y"] == (2, 5)


# ---- inputs of one value ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["true", "false"])
def test_an_if_on_an_input_that_is_set_is_inlined(tmp_path: Path, flag: str) -> None:
    """The input stays and has no say any more; the plan tells verify."""
    decoder = branches.merged_decoder()
    onnx.save(decoder, tmp_path / "model.onnx")
    paths = [str(tmp_path / "model.onnx"), str(tmp_path / "slim.onnx")]
    called(["prune", paths[0], "-o", paths[1], "--ratio", "ffn=0.5", "--set", f"use_cache={flag}"])
    slim = onnx.load(paths[1])
    assert [each.name for each in slim.graph.input] == [each.name for each in decoder.graph.input]
    assert all(each.op_type != "If" for each in slim.graph.node)
    yes, no = both_ways(slim)
    for a, b in zip(yes, no, strict=True):
        np.testing.assert_array_equal(a, b)
    called(["verify", *paths])
    called(["explain", paths[0], "--set", f"use_cache={flag}"])


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"nobody": 1}, "no input 'nobody'"), ({"x": 1}, "how long it is varies"), ({"use_cache": 3}, "is no BOOL")],
)
def test_an_input_that_cannot_be_set(values: dict[str, float], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        pg.analyze(branches.shared_branches(), scope=pg.Scope(values=values))


def called(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_an_if_on_a_comparison_of_an_input_that_is_set_is_inlined_before_anything_is_tried() -> None:
    """The branch that is not taken need not run, and weights that it alone reads are no weights of the model."""
    wide = RNG.normal(size=(5, 300)).astype(np.float32)
    then = branch("t", node("Neg", ["w"], ["t"]))
    other = branch("e", node("MatMul", ["w", "wide"], ["e"]), weights={"wide": wide})
    compare = node("Equal", ["rate", "rate_16k"], ["is_16k"])
    outer = node("If", ["is_16k"], ["y"], then_branch=then, else_branch=other)
    rate = value("rate", TensorProto.INT64, [])
    original = model([compare, outer], condition=False, constants={"rate_16k": np.array(16000)}, more=[rate])
    assert constant_conditions(ir.from_proto(original)) == {}
    fixed = fix_inputs(ir.from_proto(original), {"rate": 16000})
    assert bool(constant_conditions(fixed)["is_16k"][0])
    result = prune_graph(original, {"ffn": 0.5}, scope=pg.Scope(values={"rate": 16000}))
    assert result.report.verify is not None and result.report.verify.ok
    assert "wide" not in result.ir_model.graph.initializers


def test_large_initializers_that_nothing_reads_do_not_stop_the_proof() -> None:
    original = model(
        [node("Identity", ["w"], ["y"])], condition=False, constants={"unread": np.ones((40, 40), np.float32)}
    )
    result = prune_graph(original, {"ffn": 0.5})
    assert result.report.verify is not None and result.report.verify.ok


@pytest.mark.parametrize("op", ["Equal", "Greater", "Min", "Sub", "Squeeze"])
def test_what_is_alike_for_two_lengths_may_hang_on_the_length(op: str) -> None:
    """`length == 1` and `min(length, 1)` are alike for the lengths that stand in for an unknown one."""
    operands = ["length", "axis"] if op == "Squeeze" else ["length", "one"]
    nodes = [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "index"], ["length"])]
    nodes += [node("Gather", ["shape", "other"], ["known"]), node(op, operands, ["asked"])]
    weights = {"one": np.array([1]), "index": np.array([0]), "other": np.array([1]), "axis": np.array([0])}
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, ["b", 8])], [], tensors)
    original = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    arrays = infer(original, {"x": (None, 8)}, weights, ["shape", "length", "known", "asked"], set()).held
    assert arrays["known"].tolist() == [8]
    assert "asked" not in arrays
