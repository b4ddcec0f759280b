"""Attention that is given queries, keys and values in one: apart it runs, is turned, cut and proven."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import prunegraph as pg
from prunegraph.passes.normalize.unpack_attention import unpack_attention
from prunegraph.runtime.session import open_session, run
from tests.graphs.fused import multi_head, multi_head_packed, multi_head_packed_kv

PACKED = {"q, k and v": (multi_head_packed, 1), "k and v": (multi_head_packed_kv, 2)}


def feeds(count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, memory = (rng.normal(size=(count, length, 7)).astype(np.float32) for length in (5, 8))
    return {"x": x, "memory": memory}


@pytest.mark.parametrize("name", PACKED)
def test_apart_they_compute_what_the_op_is_defined_to(name: str) -> None:
    """The op as a torch function is the judge: ONNX Runtime has no kernel on a CPU."""
    torch = pytest.importorskip("torch")
    from prunegraph.torch_twin import call, to_torch

    model = ir.from_proto(PACKED[name][0]())
    given = {value.name or "": feeds()[value.name or ""] for value in model.graph.inputs}
    with torch.no_grad():
        tensors = {name: torch.tensor(array) for name, array in given.items()}
        (expected,) = (output.numpy() for output in call(to_torch(model), tensors).values())
    with open_session(unpack_attention(model)) as session:
        assert np.abs(run(session, given)[0] - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", PACKED)
def test_dims_turn_and_are_cut_each_by_themselves(name: str) -> None:
    make, inputs = PACKED[name]
    data = dict(list(feeds(40).items())[:inputs])
    result = pg.prune_graph(make(), {"qk_dim": 0.5, "v_dim": 0.25}, data=data)
    kept = {group.kind: (group.before, group.after) for group in result.report.groups}
    assert kept == {"qk_dim": (4, 2), "v_dim": (4, 3)} and result.verify().ok
    assert result.report.rotate is not None and len(result.report.rotate.rotation) == 2


def test_other_models_are_left_as_they_are() -> None:
    model = ir.from_proto(multi_head())
    assert unpack_attention(model) is model
