"""The laws of pruning, on every small graph: what Shrink makes is what was asked for, whatever was asked for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from prunegraph.analysis.groups import Group
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.selection import Selection
from prunegraph.passes.prove.verify import verify
from prunegraph.passes.rewrite.cleanup import cleanup
from prunegraph.passes.rewrite.nest import nest
from prunegraph.passes.rewrite.shrink import shrink
from prunegraph.runtime.nest_bodies import nest_bodies
from tests.analysis.golden import compact, read
from tests.graphs.selections import selections
from tests.graphs.small import GRAPHS, Analysed, analysed, analysed_model

ROUNDING = 2e-5
"""Largest relative difference: float32 sums of a few dozen terms in another order."""

few = settings(derandomize=True, deadline=None, max_examples=6, database=None, phases=[Phase.generate])
every_graph = pytest.mark.parametrize("name", GRAPHS)


def slim(analyzed: Analysed, selection: Selection) -> ir.Model:
    keeps = selection.keeps(analyzed.analysis.groups)
    solution = analyzed.analysis.solution
    return cleanup(shrink(analyzed.normalized, solution, keeps).model, solution, Lengths(solution, keeps))


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.dtype == right[name].dtype
        np.testing.assert_array_equal(array, right[name], err_msg=name)


@every_graph
def test_golden(name: str) -> None:
    assert compact(analysed(name).analysis) == read()[name]


@pytest.mark.slow
@every_graph
@few
@given(data=st.data())
def test_shrunk_is_masked(name: str, data: st.DataObject) -> None:
    analyzed = analysed(name)
    selection = data.draw(selections(analyzed.analysis.groups))
    keeps = selection.keeps(analyzed.analysis.groups)
    result = verify(analyzed.model, analyzed.normalized, slim(analyzed, selection), analyzed.analysis, keeps)
    assert result.ok, result
    assert max(result.max_rel_error, result.normalize_error) < ROUNDING
    if selection.removed:
        assert result.moved > 1e-3


@pytest.mark.slow
@every_graph
def test_each_group_alone(name: str) -> None:
    """Half of each group in turn: what one group gets wrong, others do not hide."""
    analyzed = analysed(name)
    for group in analyzed.analysis.groups:
        order = np.random.default_rng(group.units).random(group.shape).argsort(-1).argsort(-1)
        selection = Selection({group.id: order < max(group.least, group.units // 2)})
        model = slim(analyzed, selection)
        result = verify(
            analyzed.model, analyzed.normalized, model, analyzed.analysis, selection.keeps(analyzed.analysis.groups)
        )
        assert result.ok and result.max_rel_error < ROUNDING and result.moved > 1e-3, (group.id, result)
        assert result.exact == group.exact
        shapes = {weight: array.shape for weight, array in weights(model).items()}
        for place in group.places:
            old = analyzed.normalized.graph.initializers[place.name].shape
            assert old is not None and shapes.get(place.name, (0,) * 9)[place.axis] < old[place.axis], place


@pytest.mark.slow
@every_graph
def test_slim_models_are_valid(name: str) -> None:
    analyzed = analysed(name)
    halves = {g.id: np.indices(g.shape)[-1] < (g.units + 1) // 2 for g in analyzed.analysis.groups}
    proto = ir.to_proto(nest_bodies(slim(analyzed, Selection(halves))))
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    given_proto = ir.to_proto(analyzed.model)
    edges = "input", "output"
    if name != "initializers_as_inputs":  # there weights are inputs too
        for edge in edges:
            assert list(getattr(proto.graph, edge)) == list(getattr(given_proto.graph, edge))
    assert [o.version for o in proto.opset_import if o.domain == ""] == [
        o.version for o in given_proto.opset_import if o.domain == ""
    ]


@every_graph
def test_keeping_everything_changes_nothing(name: str) -> None:
    analyzed = analysed(name)
    everything = Selection({group.id: np.ones(group.shape, dtype=bool) for group in analyzed.analysis.groups})
    whole = shrink(analyzed.normalized, analyzed.analysis.solution, everything.keeps(analyzed.analysis.groups)).model
    assert_same(weights(whole), weights(analyzed.normalized))
    assert [node.op_type for node in whole.graph] == [node.op_type for node in analyzed.normalized.graph]


def named(group: Group) -> str:
    """The kind, as far as widths have no say in it: one beside which others have shrunk is no rank any more."""
    return "bottleneck" if group.kind in ("rank", "dense", "ffn") else group.kind


@pytest.mark.slow
@every_graph
@few
@given(data=st.data())
def test_twice_is_once(name: str, data: st.DataObject) -> None:
    """Pruning a pruned file prunes it once by both selections."""
    analyzed = analysed(name)
    first = data.draw(selections(analyzed.analysis.groups, least=2))
    again = analysed_model(ir.to_proto(nest(slim(analyzed, first))))
    pairs = list(zip(analyzed.analysis.groups, again.analysis.groups, strict=True))
    for before, after in pairs:
        assert (named(before), len(before.rows)) == (named(after), len(after.rows))
    second = data.draw(selections(again.analysis.groups))
    before_of = {after.id: before.id for before, after in pairs}
    renamed = Selection({before_of[group]: mask for group, mask in second.keep.items()})
    at_once = first.then(renamed, analyzed.analysis.groups)
    twice, once = weights(slim(again, second)), weights(slim(analyzed, at_once))
    weight_names = {place.name for group in analyzed.analysis.groups for place in group.places}
    assert_same(
        {name: twice[name] for name in weight_names & twice.keys()},
        {name: once[name] for name in weight_names & once.keys()},
    )


@every_graph
@few
@given(data=st.data())
def test_selections_survive_json(name: str, data: st.DataObject) -> None:
    selection = data.draw(selections(analysed(name).analysis.groups))
    back = Selection.from_json(selection.to_json())
    assert back.keep.keys() == selection.keep.keys()
    for group, mask in selection.keep.items():
        np.testing.assert_array_equal(back.keep[group], mask)
        assert back.keep[group].dtype == bool
