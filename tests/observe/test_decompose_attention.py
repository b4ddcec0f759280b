"""`Attention` of com.microsoft tells its probabilities through a twin that makes Q, K and V apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from prunegraph.analyzed import Analyzed, load_and_analyze
from prunegraph.observe.attention_sites import ObservedValue, attentions
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened
from tests.graphs import fused as graphs_fused
from tests.graphs.builder import linear
from tests.graphs.fused import D, E, H, contrib, finish, microsoft, stem

WIDTH = H * D
Array = np.ndarray


def lengths() -> onnx.ModelProto:
    """The mask says how many keys of every sample count; a scale of its own."""
    g = contrib("lengths")
    h = stem(g)
    mask = g.input("mask", "B", dtype=TensorProto.INT32)
    operands = (g.weight("w_qkv", E, 3 * WIDTH), g.weight("b_qkv", 3 * WIDTH, scale=0.5), mask)
    y = microsoft(g, "Attention", h, *operands, num_heads=H, scale=0.2)
    return finish(g, g("Add", h, linear(g, y, "o", WIDTH, E)))


def by_query() -> onnx.ModelProto:
    """A mask of its own for every query, no bias."""
    g = contrib("by_query")
    h = stem(g)
    mask = g.input("mask", "B", "S", "S", dtype=TensorProto.INT32)
    y = microsoft(g, "Attention", h, g.weight("w_qkv", E, 3 * WIDTH), None, mask, num_heads=H)
    return finish(g, g("Add", h, linear(g, y, "o", WIDTH, E)))


def past() -> onnx.ModelProto:
    """Keys and values of five earlier positions, causal."""
    g = contrib("past")
    h = stem(g)
    cache = g("Mul", g.input("seen", "B", 1, 5, 1), g.weight("past", 2, 1, H, 5, D, scale=1.0))
    operands = (g.weight("w_qkv", E, 3 * WIDTH), g.weight("b_qkv", 3 * WIDTH, scale=0.5), None, cache)
    y, _ = microsoft(g, "Attention", h, *operands, n=2, num_heads=H, unidirectional=1)
    return finish(g, g("Add", h, linear(g, y, "o", WIDTH, E)))


CASES: list[Callable[[], onnx.ModelProto]] = [
    graphs_fused.attention,
    graphs_fused.attention_bias,
    lengths,
    by_query,
    past,
]


def feeds_of(model: onnx.ModelProto, rng: np.random.Generator) -> Feeds:
    """Two samples of seven positions, of which the second has three that are padding."""
    valid = np.arange(7) < np.array([[7], [4]])
    masks = {1: valid.sum(1), 2: valid, 3: valid[:, None] & np.tri(7, dtype=bool)}
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        shape = value.type.tensor_type.shape.dim
        if value.name == "mask":
            feeds["mask"] = masks[len(shape)].astype(np.int32)
        else:
            sizes = [dim.dim_value or {"B": 2, "S": 7}.get(dim.dim_param, 1) for dim in shape]
            feeds[value.name] = rng.normal(size=sizes).astype(np.float32)
    return feeds


def weight(analyzed: Analyzed, index: int) -> Array:
    (node,) = (node for node in analyzed.normalized.model.graph if node.op_type == "Attention")
    value = node.inputs[index]
    return np.zeros(1, np.float32) if value is None or value.const_value is None else value.const_value.numpy()


def heads(x: Array, count: int = H) -> Array:
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_maps_are_those_of_the_attention_spelt_out(make: Callable[[], onnx.ModelProto]) -> None:
    """Maps times values are the context, and where nothing masks or adds, they are the Softmax of Q and K."""
    proto = make()
    analyzed = load_and_analyze(proto)
    (site,) = attentions(analyzed.normalized.model, analyzed.analysis)
    assert site.probabilities is not None and (site.q, site.k, site.v) == ("", "", "")
    (node,) = (node for node in analyzed.normalized.model.graph if node.op_type == "Attention")
    old = node.inputs[4] if len(node.inputs) > 4 else None
    names = [site.probabilities.value, site.context, node.inputs[0].name, *([old.name] if old is not None else [])]
    observed = [site.probabilities, *(ObservedValue(name or "") for name in names[1:])]
    feeds = feeds_of(proto, np.random.default_rng(0))
    with open_session(with_outputs(widened(analyzed.normalized.model), observed)) as session:
        values = dict(zip(names, run(session, feeds, names), strict=True))
        plain = run(session, feeds, [value.name for value in proto.graph.output])
    with open_session(widened(analyzed.normalized.model)) as session:
        for a, b in zip(plain, run(session, feeds), strict=True):
            np.testing.assert_array_equal(a, b)
    maps = site.maps(values)
    qkv = values[node.inputs[0].name] @ weight(analyzed, 1) + weight(analyzed, 2)
    q, k, v = (heads(part) for part in np.split(qkv, [WIDTH, 2 * WIDTH], axis=2))
    if old is not None:
        k, v = (np.concatenate([side, new], axis=2) for side, new in zip(values[old.name], (k, v), strict=True))
    context = (maps @ v).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(context.reshape(values[site.context].shape), values[site.context], atol=1e-5)
    scores = q @ k.transpose(0, 1, 3, 2) * node.attributes.get_float("scale", D**-0.5)
    far = np.arange(k.shape[2]) > np.arange(7)[:, None] + k.shape[2] - 7
    if node.attributes.get_int("unidirectional", 0):
        scores = np.where(far, -1e30, scores)
    if "mask" in feeds:
        mask = feeds["mask"]
        mask = np.arange(7) < mask[:, None] if mask.ndim == 1 else mask
        scores = np.where(mask[:, None] if mask.ndim == 3 else mask[:, None, None], scores, -1e30)
    if make is graphs_fused.attention_bias:
        return
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(maps, powers / powers.sum(-1, keepdims=True), atol=1e-5)
