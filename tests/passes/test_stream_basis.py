"""Another basis for the residual stream: at full width, or where directions carry nothing, the model is what it was."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from prunegraph.passes.rotate.stream import StreamBasis, absorbed, seen_by_norm, stream_basis
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder, layer_norm, linear

WIDTH = 10
PIXELS = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
WRITERS = ("w_patch", "b_patch", "cls_token", "pos_embed", "w_o", "b_o", "w_down", "b_down")
READERS = {"norm0": ("q", "k", "v"), "norm1": ("up",), "norm2": ("fc",)}
Weights = Mapping[str, np.ndarray]


def vit(width: int, norm: str = "LayerNormalization", epsilon: float = 1e-5) -> onnx.ModelProto:
    """Patches, a class token, positions, one head of attention, an FFN, the norms first."""
    g = Builder("stream", 23)
    h = g(
        "Conv",
        g.input("x", 2, 3, 8, 8),
        g.weight("w_patch", width, 3, 4, 4),
        g.weight("b_patch", width),
        strides=[4, 4],
    )
    h = g("Transpose", g("Reshape", h, [0, width, 4]), perm=[0, 2, 1])
    h = g(
        "Add",
        g("Concat", g("Expand", g.weight("cls_token", 1, 1, width), [2, 1, width]), h, axis=1),
        g.weight("pos_embed", 1, 5, width),
    )

    def normed(h: str, name: str) -> str:
        if norm == "LayerNormalization":
            y = layer_norm(g, h, name, width)
        else:
            y = g(norm, h, g.const(f"{name}_scale", g.rng.uniform(0.5, 2, width), np.float32), axis=-1)
        g.nodes[-1].attribute.append(onnx.helper.make_attribute("epsilon", epsilon))
        return y

    q, k, v = (linear(g, normed_h, part, width, 4) for normed_h in (normed(h, "norm0"),) for part in "qkv")
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 2, 1])), axis=-1)
    h = g("Add", h, linear(g, g("MatMul", scores, v), "o", 4, width))
    h = g("Add", h, linear(g, g("Gelu", linear(g, normed(h, "norm1"), "up", width, 14)), "down", 14, width))
    g.output(linear(g, g("Gather", normed(h, "norm2"), np.array(0), axis=1), "fc", width, 5), 2, 5)
    return g.model()


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    floats = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    return {each.name: numpy_helper.to_array(each).astype(np.float64) for each in floats}


def with_weights(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    for each in model.graph.initializer:
        if each.name in weights:
            before = numpy_helper.to_array(each)
            assert before.shape == weights[each.name].shape
            each.CopyFrom(numpy_helper.from_array(weights[each.name].astype(before.dtype), each.name))
    return model


def turned(weights: Weights, basis: StreamBasis) -> dict[str, np.ndarray]:
    width = len(basis.matrix)
    copies = dict(weights)
    for name in WRITERS:
        if name == "w_patch":
            copies[name] = np.moveaxis(basis.written(np.moveaxis(weights[name], 0, -1)), -1, 0)
        else:
            copies[name] = basis.written(weights[name])
    for norm, readers in READERS.items():
        gain = weights[f"{norm}_scale"]
        offset = weights.get(f"{norm}_bias", np.zeros_like(gain))
        for reader in readers:
            weight, copies[f"b_{reader}"] = absorbed(weights[f"w_{reader}"], weights[f"b_{reader}"], gain, offset)
            copies[f"w_{reader}"] = basis.read(weight)
        copies[f"{norm}_scale"], copies[f"{norm}_bias"] = np.ones(width), np.zeros(width)
    return copies


def output(model: onnx.ModelProto) -> np.ndarray:
    with open_session(ir.from_proto(model)) as session:
        return run(session, {"x": PIXELS})[0]


NORMS = {"LayerNormalization": True, "RMSNormalization": False}


def apart(a: onnx.ModelProto, b: onnx.ModelProto) -> float:
    left, right = output(a), output(b)
    return float(np.abs(left - right).max() / np.abs(left).max())


@pytest.mark.parametrize("norm", NORMS)
def test_at_full_width_the_model_is_the_original(norm: str) -> None:
    rng = np.random.default_rng(1)
    original = vit(WIDTH, norm)
    basis = stream_basis(seen_by_norm(rng.normal(size=(30, WIDTH)), centred=NORMS[norm]), WIDTH, centred=NORMS[norm])
    changed = turned(weights_of(original), basis)
    assert np.abs(changed["w_up"] - weights_of(original)["w_up"]).max() > 0.1
    assert apart(original, with_weights(vit(WIDTH, norm), changed)) < 1e-5


@pytest.mark.parametrize("norm", NORMS)
def test_directions_that_carry_nothing_cost_nothing(norm: str) -> None:
    rng = np.random.default_rng(2)
    carried, epsilon = np.linalg.qr(rng.normal(size=(WIDTH, 5)))[0], 0.3
    weights = weights_of(vit(WIDTH, norm))
    projector = StreamBasis(carried @ carried.T, np.ones(WIDTH))
    for name in WRITERS:
        moved = np.moveaxis(weights[name], 0, -1) if name == "w_patch" else weights[name]
        weights[name] = np.moveaxis(projector.written(moved), -1, 0) if name == "w_patch" else projector.written(moved)
    original = with_weights(vit(WIDTH, norm, epsilon), weights)
    positions = rng.normal(size=(30, 5)) @ carried.T
    for width, exact in ((6, True), (4, False)):
        basis = stream_basis(seen_by_norm(positions, centred=NORMS[norm]), width, centred=NORMS[norm])
        slim = with_weights(vit(width, norm, basis.epsilon(epsilon)), turned(weights, basis))
        assert (apart(original, slim) < 1e-5) == exact


def test_the_energy_is_what_the_norms_see() -> None:
    rng = np.random.default_rng(3)
    moments = seen_by_norm(rng.normal(size=(40, 6)) + 2)
    basis = stream_basis(moments, 6)
    assert np.isclose(basis.energy.sum(), np.trace(moments)) and (np.diff(basis.energy) <= 0).all()
    assert np.allclose(basis.matrix @ np.ones(6), 0, atol=1e-12) and np.allclose(
        basis.matrix.sum(axis=0), 0, atol=1e-12
    )
