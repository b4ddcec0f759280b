"""Assigned blocks: whatever block a ScatterND writes, what stands for it writes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunegraph.passes.normalize import normalize
from prunegraph.passes.normalize.slice_assignment import block_of
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder

SHAPE = (3, 4, 5)


def positions(reach: list[tuple[int, int]]) -> np.ndarray:
    """Every position of a block, `[n0, n1, …, axes]`."""
    lines = [np.arange(*each) for each in reach]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)


reaches = st.integers(1, len(SHAPE)).flatmap(
    lambda depth: st.tuples(
        *(st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda e: e[0] < e[1]) for n in SHAPE[:depth])
    ).map(list)
)


@settings(derandomize=True, deadline=None, max_examples=25, database=None)
@given(reach=reaches)
def test_the_same_is_written(reach: list[tuple[int, int]]) -> None:
    g = Builder("assigned")
    indices = positions(reach)
    updates = (*indices.shape[:-1], *SHAPE[len(reach) :])
    g.output(g("ScatterND", g.input("x", *SHAPE), indices, g.input("updates", *updates)), *SHAPE)
    model = ir.from_proto(g.model())
    plain = normalize(model).model
    assert "ScatterND" not in {node.op_type for node in plain.graph}
    feeds = {"x": g.rng.random(SHAPE, np.float32), "updates": g.rng.random(updates, np.float32)}
    for one, other in zip(*(outputs(each, feeds) for each in (model, plain)), strict=True):
        np.testing.assert_array_equal(one, other)


def outputs(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    with open_session(model) as session:
        return run(session, feeds)


@pytest.mark.parametrize(
    ("value", "block"),
    [
        ([[2], [3], [4]], ((2, 5),)),
        (positions([(1, 3), (0, 2)]), ((1, 3), (0, 2))),
        ([[2], [4]], None),
        ([[3], [2]], None),
        ([[-2], [-1]], None),
        ([[0, 0], [1, 1]], None),
        (positions([(0, 2), (0, 2)]).transpose(1, 0, 2), None),
        ([], None),
        (3, None),
    ],
)
def test_what_is_a_block(value: object, block: object) -> None:
    assert block_of(np.array(value, dtype=np.int64)) == block
