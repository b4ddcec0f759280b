"""Law 4: what is found and what is made depend neither on the order of nodes nor on what values are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.passes.rewrite.shrink import shrink
from prunegraph.runtime.feeds import random_feeds
from prunegraph.runtime.inputs import input_specs
from prunegraph.runtime.session import open_session, run
from tests.graphs.small import GRAPHS, Analysed, analysed, analysed_model

pytestmark = pytest.mark.slow

every_graph = pytest.mark.parametrize("name", GRAPHS)

DERIVED = re.compile(r"(/use\d+|/part\d+|/frozen)+$")
"""What Normalize adds to the names of copies; their numbers follow the order of nodes."""


def shuffled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The same model, its nodes in another topological order, its initializers in any."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    node_outputs = {name for node in model.graph.node for name in node.output if name}
    waiting, ready = list(model.graph.node), set[str]()
    del other.graph.node[:]
    while waiting:
        able = [node for node in waiting if not (_reads(node) & node_outputs) - ready]
        node = able[rng.integers(len(able))]
        other.graph.node.append(node)
        ready |= set(node.output)
        waiting.remove(node)
    tensors = [model.graph.initializer[k] for k in rng.permutation(len(model.graph.initializer))]
    del other.graph.initializer[:]
    other.graph.initializer.extend(tensors)
    return other


def _reads(node: onnx.NodeProto) -> set[str]:
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = {name for body in bodies for child in body.node for name in _reads(child)}
    return set(node.input) | inner | {value.name for body in bodies for value in body.output}


def renamed(model: onnx.ModelProto, rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The same model with new names for all but inputs and outputs, and the old names by the new ones."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    new = _new_names(other.graph, kept, rng)
    _rename(other.graph, new)
    return other, {after: before for before, after in new.items()}


def _new_names(graph: onnx.GraphProto, kept: set[str], rng: np.random.Generator) -> dict[str, str]:
    names = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    names = [name for name in names if name not in kept]
    return dict(zip(names, (f"v{k}" for k in rng.permutation(len(names))), strict=True))


def _rename(graph: onnx.GraphProto, new: dict[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for k, node in enumerate(graph.node):
        node.name = f"node_{k}"
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, new)


Key = tuple[Hashable, ...]


def key(group: Group, old: dict[str, str]) -> Key:
    """What a group is, whatever its number."""
    places = Counter((_plain(place.name, old), place.axis, place.expression) for place in group.places)
    return group.kind, group.units, tuple(sorted(group.rows)), group.exact, frozenset(places.items())


def _plain(name: str, old: dict[str, str]) -> str:
    stem = DERIVED.sub("", name)
    return old.get(stem, stem)


def pins(analyzed: Analysed, old: dict[str, str]) -> set[tuple[str, int]]:
    """The pinned axes.  Into which factors one falls before it clashes may depend on who comes first."""
    return {(_plain(pinned.place.name, old), pinned.place.axis) for pinned in analyzed.analysis.pinned}


def variants(name: str) -> Iterator[tuple[Analysed, dict[str, str]]]:
    proto = GRAPHS[name]()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        other, old = renamed(shuffled(proto, rng), rng)
        yield analysed_model(other), old


@every_graph
def test_groups_and_results(name: str) -> None:
    """Other orders and names: the same groups and pins, and the same numbers from what the same selection leaves."""
    analyzed = analysed(name)
    groups = Counter(key(group, {}) for group in analyzed.analysis.groups)
    expected = _outputs(analyzed, _halves(analyzed))
    for other, old in variants(name):
        assert Counter(key(group, old) for group in other.analysis.groups) == groups
        assert pins(other, old) == pins(analyzed, {})
        for a, b in zip(expected, _outputs(other, _halves(other)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def _halves(analyzed: Analysed) -> Selection:
    """The first units of every group: the same ones, whatever the groups are called."""
    return Selection(
        {group.id: np.indices(group.shape)[-1] < (group.units + 1) // 2 for group in analyzed.analysis.groups}
    )


def _outputs(analyzed: Analysed, selection: Selection) -> list[np.ndarray]:
    keeps = selection.keeps(analyzed.analysis.groups)
    slim = shrink(analyzed.normalized, analyzed.analysis.solution, keeps).model
    specs = input_specs(slim.graph)
    sizes = {dim: 13 if axis else 2 for spec in specs for axis, dim in enumerate(spec.dims) if isinstance(dim, str)}
    with open_session(slim) as session:
        return run(session, random_feeds(specs, sizes, 0))


def test_shuffling_shuffles() -> None:
    """The shuffle is a real one, and a valid model."""
    proto = GRAPHS["mha"]()
    other, old = renamed(shuffled(proto, np.random.default_rng(0)), np.random.default_rng(0))
    assert [node.op_type for node in other.graph.node] != [node.op_type for node in proto.graph.node]
    assert set(old.values()) >= {tensor.name for tensor in proto.graph.initializer}
    onnx.checker.check_model(other, full_check=True)
    assert ir.from_proto(other).graph.num_nodes() == len(proto.graph.node)
