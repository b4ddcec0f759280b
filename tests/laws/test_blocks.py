"""The law of blocks: a graph that runs block by block makes what it makes when it runs whole, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.passes.prove.trial_inputs import trial_inputs
from prunegraph.runtime import blocks, free_memory, spill
from prunegraph.runtime.blocks import Values, bytes_of_weights, open_runner
from prunegraph.runtime.cut import cut
from prunegraph.runtime.limits import Limits, TooLong
from prunegraph.runtime.session import SessionSettings
from prunegraph.runtime.session import run as run_session
from prunegraph.runtime.widen import widened, widened_feeds
from tests.graphs.builder import Builder
from tests.graphs.skeleton import load_skeleton, skeleton_names
from tests.graphs.small import GRAPHS

AS_WRITTEN = SessionSettings(optimize=False, prepack=False)
WHOLE = 1 << 60
ZOO = [name for name in skeleton_names() if name.startswith("zoo_")]
FEW = ["zoo_llama", "zoo_t5", "zoo_bert_legacy", "zoo_densenet", "zoo_swin", "zoo_mixtral"]


def model_of(name: str) -> ir.Model:
    return widened(ir.from_proto(GRAPHS[name]() if name in GRAPHS else load_skeleton(name)))


def inner_values(graph: ir.Graph) -> list[str]:
    """Every seventh value inside."""
    there = {value.name for value in graph.outputs}
    inner = [value.name for node in graph for value in node.outputs if value.name and value.dtype == ir.DataType.FLOAT]
    return [name for name in inner if name not in there][::7]


def run(
    model: ir.Model, feeds: Sequence[dict[str, np.ndarray]], names_by_run: Sequence[list[str]], most: int
) -> list[Values]:
    names = list(dict.fromkeys(name for each in names_by_run for name in each))
    with open_runner(model, names, AS_WRITTEN, most=most) as runner:
        results = list(runner.run(feeds, names_by_run))
        assert most == WHOLE or runner.blocks, "a block could not be run by itself"  # type: ignore[attr-defined]
    return results


def assert_same(left: Sequence[Values], right: Sequence[Values]) -> None:
    for before, after in zip(left, right, strict=True):
        assert before.keys() == after.keys()
        for name, array in before.items():
            assert (array.dtype, array.shape) == (after[name].dtype, after[name].shape)
            assert array.tolist() == after[name].tolist() if array.dtype == object else True
            assert array.dtype == object or array.tobytes() == after[name].tobytes(), name


def check(name: str, parts: int) -> int:
    """Run a model whole and by blocks; how many blocks there were."""
    model = model_of(name)
    outputs = [value.name or "" for value in model.graph.outputs]
    feeds = [widened_feeds(feed) for feed in trial_inputs(model, outputs, None).feeds]
    names_by_run = [[*outputs, *inner_values(model.graph)], *[outputs] * (len(feeds) - 1)]
    most = max(bytes_of_weights(model.graph) // parts, 1)
    if len(cut(model.graph, names_by_run[0], most)) < 2:
        return 1
    assert_same(run(model, feeds, names_by_run, WHOLE), run(model, feeds, names_by_run, most))
    return len(cut(model.graph, names_by_run[0], most))


@pytest.mark.parametrize("name", FEW)
def test_by_blocks_is_whole(name: str) -> None:
    assert check(name, 6) > 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GRAPHS, *(name for name in ZOO if name not in FEW)])
def test_by_blocks_is_whole_on_every_graph(name: str) -> None:
    check(name, 6)


# ---- where a cut may be, and what crosses it -------------------------------------------------------------------------

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


def residual(sums: int = 6, width: int = 8) -> Builder:
    """A stream to which small networks add, one after the other."""
    b = Builder("residual")
    x = b.input("x", "batch", width)
    for k in range(sums):
        hidden = b("Relu", b("MatMul", x, b.weight(f"up{k}", width, 16)))
        x = b("Add", x, b("MatMul", hidden, b.weight(f"down{k}", 16, width)))
    b.output(x, "batch", width)
    return b


def model_from(b: Builder) -> ir.Model:
    return ir.from_proto(b.model())


def run_both(model: ir.Model, feed: dict[str, np.ndarray], most: int = 1) -> list[Values]:
    names_by_run = [[value.name or "" for value in model.graph.outputs]]
    results = run(model, [feed], names_by_run, WHOLE)
    assert_same(results, run(model, [feed], names_by_run, most))
    return results


def test_a_stream_is_cut_at_its_sums() -> None:
    model = model_from(residual())
    sums = {node.outputs[0].name for node in model.graph if node.op_type == "Add"}
    pieces = cut(model.graph, [model.graph.outputs[0].name or ""], 2 * 4 * 8 * 16)
    assert len(pieces) == 6
    assert all(set(piece.reads) <= {*sums, "x"} and len(piece.reads) == 1 for piece in pieces)
    assert [len(piece.weights) for piece in pieces] == [2] * 6


def test_what_nobody_asks_for_is_not_run() -> None:
    model = model_from(residual())
    first = next(node for node in model.graph if node.op_type == "Add").outputs[0].name or ""
    assert [name for piece in cut(model.graph, [first], 1) for name in piece.weights] == ["up0", "down0"]


def test_what_is_made_of_constants_alone_does_not_cross() -> None:
    """All weights dequantized at the start, as some quantizers write them, and one of them read twice."""
    b = Builder("dequantized")
    x = b.input("x", "batch", 8)
    integers = [b.const(f"w{k}", np.arange(64).reshape(8, 8) % 7 - 3, np.int8) for k in range(4)]
    weights = [b("DequantizeLinear", name, 0.1) for name in integers]
    for weight in [*weights, weights[0]]:
        x = b("Tanh", b("MatMul", x, weight))
    b.output(x, "batch", 8)
    model = model_from(b)
    pieces = cut(model.graph, [x], 64)
    assert all(len(piece.reads) == 1 for piece in pieces)
    assert sum("w0" in piece.weights for piece in pieces) == 2
    run_both(model, {"x": X}, 64)


def test_nodes_in_no_order_run_whole() -> None:
    model = model_from(residual())
    last = list(model.graph)[-1]
    model.graph.remove(last)
    model.graph.insert_before(model.graph[0], last)
    assert len(cut(model.graph, [model.graph.outputs[0].name or ""], 1)) == 1


def test_sequences_do_not_cross() -> None:
    b = Builder("sequence")
    x = b.input("x", "batch", 8)
    parts = b("SplitToSequence", b("MatMul", x, b.weight("before", 8, 8)), axis=1, keepdims=1)
    first = b("MatMul", x, b.weight("beside", 8, 8))
    joined = b("ConcatFromSequence", parts, axis=1)
    b.output(b("MatMul", b("Add", first, joined), b.weight("after", 8, 8)), "batch", 8)
    model = model_from(b)
    assert all("SplitToSequence" not in name for piece in cut(model.graph, ["matmul3"], 1) for name in piece.reads)
    run_both(model, {"x": X})


def test_a_value_that_turns_out_to_be_a_sequence_lets_the_model_run_whole() -> None:
    b = Builder("hidden_sequence")
    x = b.input("x", "batch", 8)
    parts = b("SplitToSequence", b("MatMul", x, b.weight("before", 8, 8)), axis=1, keepdims=1)
    same = b("Identity", parts)
    first = b("MatMul", x, b.weight("beside", 8, 8))
    b.output(b("MatMul", b("Add", first, b("ConcatFromSequence", same, axis=1)), b.weight("after", 8, 8)), "batch", 8)
    model = model_from(b)
    outputs = [model.graph.outputs[0].name or ""]
    with open_runner(model, outputs, AS_WRITTEN, most=1) as runner:
        results = list(runner.run([{"x": X}], [outputs]))
    assert_same(run(model, [{"x": X}], [outputs], WHOLE), results)


def test_an_output_may_be_an_input_or_a_weight_or_made_of_weights() -> None:
    b = residual()
    b.output("x", "batch", 8)
    b.output(b("Transpose", "up0", perm=[1, 0]), 16, 8)
    b.output("down0", 16, 8)
    results = run_both(model_from(b), {"x": X})
    np.testing.assert_array_equal(results[0]["x"], X)


def test_bodies_read_what_crosses() -> None:
    b = residual(2)
    stream = b.outputs.pop().name
    branches = {}
    for name, op in (("then_branch", "Tanh"), ("else_branch", "Relu")):
        body = Builder(f"body_{name}")
        body.nodes.append(onnx.helper.make_node(op, [stream], [name]))
        body.output(name, "batch", 8)
        branches[name] = body
    graphs = {name: onnx.helper.make_graph(body.nodes, name, [], body.outputs) for name, body in branches.items()}
    positive = b("Greater", b("ReduceSum", "x", keepdims=0), 0.0)
    chosen = b("If", positive, **graphs)
    b.output(b("MatMul", chosen, b.weight("last", 8, 8)), "batch", 8)
    model = model_from(b)
    run_both(model, {"x": X})
    run_both(model, {"x": X + 1})


def test_what_crosses_may_lie_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(spill, "LARGE", 0)
    on_disk: list[np.ndarray] = []
    mapped = spill.mapped
    monkeypatch.setattr(spill, "mapped", lambda array, path: on_disk.append(mapped(array, path)) or on_disk[-1])
    run_both(model_from(residual()), {"x": X})
    assert on_disk and all(isinstance(array, np.memmap) for array in on_disk)


def test_what_a_block_makes_holds_on_to_no_session() -> None:
    """An output of ONNX Runtime that is not copied keeps everything that its run has allocated."""
    model = model_from(residual())
    names = [node.outputs[0].name or "" for node in model.graph]
    with open_runner(model, names, AS_WRITTEN, most=1) as runner:
        parts = [part for _, part in runner.parts([{"x": X}], [names])]
    assert len(parts) > 4
    assert all(array.base is None for part in parts for array in part.values())


@pytest.mark.parametrize(("worth", "times"), [(1 << 25, 0), (4 * X.nbytes, 3), (1, 6)])
def test_free_memory_is_given_back_where_that_is_worth_it(
    worth: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never, after every other block, or after each."""
    given_back: list[None] = []
    monkeypatch.setattr(free_memory, "WORTH", worth)
    monkeypatch.setattr(free_memory, "give_back_free_memory", lambda: given_back.append(None))
    model = model_from(residual())
    outputs = [model.graph.outputs[0].name or ""]
    run(model, [{"x": X}], [outputs], 2 * 4 * 8 * 16)
    assert len(given_back) == times


def test_values_come_as_soon_as_they_are_there() -> None:
    """Every one once, in the order of the blocks."""
    model = model_from(residual())
    names = [node.outputs[0].name or "" for node in model.graph if node.op_type == "Add"]
    feeds = [{"x": X}, {"x": X[:2] * 2}]
    with open_runner(model, names, AS_WRITTEN, most=2 * 4 * 8 * 16) as runner:
        parts = [(k, part) for k, part in runner.parts(feeds, [names, names]) if part]
        assert runner.together > 1
    assert [(k, *part) for k, part in parts] == [(k, name) for name in names for k in (0, 1)]
    by_input = [{name: array for k, part in parts if k == each for name, array in part.items()} for each in (0, 1)]
    assert_same(run(model, feeds, [names, names], WHOLE), by_input)


def test_alike_inputs_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two inputs that differ in what a late block alone reads."""
    b = residual()
    b.inputs.append(onnx.helper.make_tensor_value_info("down5", onnx.TensorProto.FLOAT, [16, 8]))
    model = model_from(b)
    outputs = [model.graph.outputs[0].name or ""]
    other = model.graph.initializers["down5"].const_value
    assert other is not None
    feeds = [{"x": X}, {"x": X, "down5": ir.tensor(other.numpy() * 2)}]
    runs = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal runs
        runs += 1
        return run_session(*arguments, **named)

    monkeypatch.setattr(blocks, "run", counted)
    with open_runner(model, outputs, AS_WRITTEN, most=2 * 4 * 8 * 16) as runner:
        results = list(runner.run(feeds, [outputs, outputs]))
    assert runs == 7
    with open_runner(model, outputs, AS_WRITTEN, most=WHOLE) as runner:
        assert_same(results, list(runner.run(feeds, [outputs, outputs])))


def test_a_limit_in_time_holds_over_all_blocks() -> None:
    model = model_from(residual())
    outputs = [model.graph.outputs[0].name or ""]
    with open_runner(model, outputs, AS_WRITTEN, most=1) as runner, pytest.raises(TooLong):
        list(runner.run([{"x": X}], [outputs], Limits(seconds=0.0)))
