"""Weights inside of the bodies of Loops and Scans shrink as others do, and the proof looks inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import prunegraph as pg
from prunegraph.analysis.selection import Selection
from prunegraph.passes.normalize import normalize
from prunegraph.passes.prove.mask import masked
from prunegraph.passes.rewrite.shrink import shrink
from prunegraph.runtime.nest_bodies import nested
from tests.graphs import bodies
from tests.graphs.run import outputs
from tests.graphs.selections import part, parts

Make = Callable[[], onnx.ModelProto]


def feeds(model: onnx.ModelProto, batch: int = 3, length: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    lengths = {"B": batch, "T": length}
    (x,) = model.graph.input
    dims = [dim.dim_value or lengths[dim.dim_param] for dim in x.type.tensor_type.shape.dim]
    return {x.name: rng.normal(size=dims).astype(np.float32)}


def same(a: ir.Model | onnx.ModelProto, b: ir.Model | onnx.ModelProto, x: dict[str, np.ndarray]) -> float:
    """Checks that two models make the same; how large that is."""
    pairs = list(zip(outputs(a, x), outputs(b, x), strict=True))
    for left, right in pairs:
        assert np.isfinite(right).all()
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    return max(float(np.abs(right).max()) for _, right in pairs)


def bodies_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in ("Loop", "Scan")]


@pytest.mark.parametrize("make", [*bodies.BODIES, bodies.growing])
def test_a_flattened_body_in_its_loop_again_computes_the_same(make: Make) -> None:
    original = make()
    normal = normalize(ir.from_proto(original))
    assert not any(node.op_type in ("Loop", "Scan") for node in normal.model.graph)
    again = ir.to_proto(nested(normal.model))
    onnx.checker.check_model(again, full_check=True)
    assert len(bodies_of(again)) == len(bodies_of(original))
    same(again, original, feeds(original))


@pytest.mark.parametrize("make", bodies.BODIES)
def test_shrunk_is_masked_for_any_selection(make: Make) -> None:
    original = make()
    graph = pg.analyze(original)
    model, solution = graph.normalized.model, graph.solution
    plain = outputs(original, x := feeds(original))
    for selection in parts(graph.groups, np.random.default_rng(1)):
        keeps = selection.keeps(graph.groups)
        oracle = nested(masked(model, solution, keeps))
        same(nested(shrink(model, solution, keeps).model), oracle, x)
        assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(plain, outputs(oracle, x), strict=True))


@pytest.mark.parametrize("make", bodies.BODIES)
def test_half_of_everything_goes_from_bodies_too(make: Make) -> None:
    """The slim file has its Loops with fewer weights, runs at other lengths, and is proven from the file too."""
    original = make()
    graph = pg.analyze(original)
    result = pg.prune_graph(original, dict.fromkeys({group.kind for group in graph.groups}, 0.5))
    slim = ir.to_proto(result.ir_model)
    onnx.checker.check_model(slim, full_check=True)
    assert [node.op_type for node in bodies_of(slim)] == [node.op_type for node in bodies_of(original)]
    assert result.report.params[1] < 0.65 * result.report.params[0]
    assert {group.id for group in graph.groups} == result.selection.keep.keys()
    keeps = result.selection.keeps(graph.groups)
    same(slim, nested(masked(graph.normalized.model, graph.solution, keeps)), feeds(original, 2, 9))
    assert result.report.verify is not None and not result.report.verify.unseen
    assert pg.verify(original, slim, result.selection).ok


def test_units_of_a_cell_are_one_choice() -> None:
    """A unit is a column of every gate, a row of the recurrence and a row of what reads the layer."""
    graph = pg.analyze(bodies.lstm_loop())
    (group,) = graph.groups
    assert group.units == bodies.H and group.exact
    assert {place.name for place in group.places} == {"w_lstm", "b_lstm", "w_out"}


@pytest.mark.parametrize("make", [bodies.lstm_loop, bodies.gru_scan, bodies.captured_weights, bodies.carried_weights])
def test_a_wrong_weight_inside_of_a_body_is_refused(make: Make) -> None:
    original = make()
    graph = pg.analyze(original)
    result = pg.prune_graph(original, dict.fromkeys({group.kind for group in graph.groups}, 0.5))
    read = {name for node in bodies_of(result.model) for each in node.attribute[-1].g.node for name in each.input}
    names = [tensor.name for tensor in result.model.graph.initializer if tensor.name in read and len(tensor.dims) == 2]
    assert names
    for name in names:
        slim = ir.to_proto(result.ir_model)
        (tensor,) = (each for each in slim.graph.initializer if each.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=0), name))
        assert not pg.verify(original, slim, result.selection).ok


def test_weights_that_no_trip_changes_are_weights() -> None:
    graph = pg.analyze(bodies.carried_weights())
    (group,) = graph.groups
    assert group.units == bodies.H and group.exact
    assert {place.name for place in group.places} == {"w", "r", "b", "w_out"}


def test_a_body_that_forgets_its_state_is_refused() -> None:
    """What a body computes is compared, not the weights alone."""
    original = bodies.captured_weights()
    result = pg.prune_graph(original, {"ffn": 0.5})
    slim = ir.to_proto(result.ir_model)
    (loop,) = bodies_of(slim)
    (tanh,) = (node for node in loop.attribute[-1].g.node if node.op_type == "Tanh")
    tanh.op_type = "Softsign"
    assert not pg.verify(original, slim, result.selection).ok


def test_a_state_that_grows_stays_whole_along_that_axis() -> None:
    original = bodies.growing()
    graph = pg.analyze(original)
    pins = {str(pin) for entry in graph.pins for pin in entry.pins}
    assert any("its length changes from trip to trip" in pin for pin in pins)
    assert [(group.kind, group.units) for group in graph.groups] == [("ffn", 16)]
    assert pg.prune_graph(original, {"ffn": 0.5}).report.verify is not None


def test_a_body_that_cannot_be_followed_pins_by_the_node_inside() -> None:
    graph = pg.analyze(bodies.body_in_a_body())
    assert [group.units for group in graph.groups] == [16]
    (pins,) = (entry.pins for entry in graph.pins if entry.place.name == "w_step" and entry.place.axis == 0)
    assert any("captured by the body of Loop" in str(pin) and "matmul" in str(pin) for pin in pins)


@pytest.mark.parametrize("seed", range(6))
def test_random_bodies(seed: int) -> None:
    """Whatever a body mixes, what is cut is what is masked."""
    original = bodies.random_body(seed)
    graph = pg.analyze(original)
    x = feeds(original)
    model, rng = graph.normalized.model, np.random.default_rng(seed)
    same(nested(model), original, x)
    for _ in range(2):
        selection = Selection({group.id: part(group, rng) for group in graph.groups})
        keeps = selection.keeps(graph.groups)
        shrunk = nested(shrink(model, graph.solution, keeps).model)
        same(shrunk, nested(masked(model, graph.solution, keeps)), x)


@pytest.mark.parametrize("scorer", ["activation", "obs"])
def test_units_of_bodies_are_scored_by_data_and_repaired(scorer: str) -> None:
    original = bodies.lstm_loop()
    x = np.random.default_rng(0).normal(size=(32, 6, bodies.X)).astype(np.float32)
    data = pg.Data({"x": x}, batch_size=8)
    kind = pg.analyze(original).groups[0].kind
    result = pg.prune_graph(original, {kind: 0.5}, scorer=scorer, data=data, after=pg.Repair())
    assert result.report.repair is not None and len(bodies_of(result.model)) == 1
