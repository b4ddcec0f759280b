"""Magnitude: what makes a unit times what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from prunegraph import prune_graph
from prunegraph.analyzed import load_and_analyze
from prunegraph.passes.score import Context, score_with
from tests.graphs import attention, blocks
from tests.graphs.builder import Builder

Array = npt.NDArray[Any]

UNITS = 12
DEAD, LIVE = np.arange(0, UNITS, 2), np.arange(1, UNITS, 2)


def scores_of(model: onnx.ModelProto, scorer: str = "magnitude") -> Mapping[str, Array]:
    analyzed = load_and_analyze(model)
    return score_with(scorer, analyzed.analysis.groups, Context(analyzed.normalized.model, analyzed.analysis))


def mlp(act: Callable[[Builder, str], str], **planted: Any) -> Builder:
    g = Builder("magnitude_mlp")
    g.input("x", "batch", 8)
    for name, shape in (("w_in", (8, UNITS)), ("b_in", (UNITS,)), ("w_out", (UNITS, 5))):
        g.weight(name, *shape)
    for name, change in planted.items():
        change(g.initializers[name])
    g.output(g("MatMul", act(g, g("Add", g("MatMul", "x", "w_in"), "b_in")), "w_out"), "batch", 5)
    return g


def gelu(g: Builder, x: str) -> str:
    return str(g("Mul", g("Mul", x, g("Add", g("Erf", g("Div", x, 1.4142135)), 1.0)), 0.5))


ACTIVATIONS: dict[str, Callable[[Builder, str], str]] = {
    "relu": lambda g, x: str(g("Relu", x)),
    "gelu, spelt out": gelu,
    "silu, spelt out": lambda g, x: str(g("Mul", x, g("Sigmoid", x))),
    "tanh": lambda g, x: str(g("Tanh", x)),
}


def zero(index: Any) -> Callable[[Array], None]:
    def change(array: Array) -> None:
        array[index] = 0

    return change


def larger(index: Any) -> Callable[[Array], None]:
    def change(array: Array) -> None:
        array[index] *= 40

    return change


PLANTED: dict[str, dict[str, Callable[[Array], None]]] = {
    "nothing makes them": {"w_in": zero(np.s_[:, DEAD]), "b_in": zero(DEAD), "w_out": larger(DEAD)},
    "nothing reads them": {"w_in": larger(np.s_[:, DEAD]), "w_out": zero(DEAD)},
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_dead_neurons_score_nothing(act: str, planted: str) -> None:
    scores = scores_of(mlp(ACTIVATIONS[act], **PLANTED[planted]).model())["ffn.0"]
    assert (scores[DEAD] == 0).all() and (scores[LIVE] > 0).all()


def test_of_a_plain_mlp_it_is_the_product_of_two_norms() -> None:
    g = mlp(ACTIVATIONS["relu"])
    w_in, b_in, w_out = (g.initializers[name].astype(np.float64) for name in ("w_in", "b_in", "w_out"))
    expected = np.sqrt((w_in**2).sum(axis=0) + b_in**2) * np.linalg.norm(w_out, axis=1)
    np.testing.assert_allclose(scores_of(g.model())["ffn.0"], expected, rtol=1e-6)


def normalized(folded: bool, dead: bool = True) -> onnx.ModelProto:
    """Two convolutions around a normalization whose gain and offset are zero for dead channels."""
    g = Builder("magnitude_bn")
    g.input("x", "batch", 3, 6, 6)
    shapes = {"w_in": (UNITS, 3, 1, 1), "b_in": (UNITS,), "gain": (UNITS,), "offset": (UNITS,), "mean": (UNITS,)}
    for name, shape in {**shapes, "w_out": (4, UNITS, 1, 1)}.items():
        g.weight(name, *shape)
    variance = np.full(UNITS, 0.7, np.float32)
    if dead:
        g.initializers["gain"][DEAD] = g.initializers["offset"][DEAD] = 0
        g.initializers["mean"][DEAD], variance[DEAD] = 3, 50
    scale = g.initializers["gain"] / np.sqrt(variance + 1e-5)
    if folded:
        g.initializers["w_in"] *= scale[:, None, None, None]
        g.initializers["b_in"] = (g.initializers["b_in"] - g.initializers["mean"]) * scale + g.initializers["offset"]
        hidden = g("Conv", "x", "w_in", "b_in")
        for name in ("gain", "offset", "mean"):
            del g.initializers[name]
    else:
        hidden = g("Conv", "x", "w_in", "b_in")
        hidden = g("BatchNormalization", hidden, "gain", "offset", "mean", g.const("variance", variance))
    g.output(g("Conv", g("Relu", hidden), "w_out"), "batch", 4, 6, 6)
    return g.model()


def test_folding_a_batch_norm_changes_no_score() -> None:
    """Running statistics are no weights: what they hold of dead channels does not count."""
    plain, folded = (scores_of(normalized(folded))["channel.0"] for folded in (False, True))
    np.testing.assert_allclose(plain, folded, rtol=1e-5)
    assert (plain[DEAD] == 0).all() and (plain[LIVE] > 0).all()
    whole, folded = (scores_of(normalized(folded, dead=False))["channel.0"] for folded in (False, True))
    np.testing.assert_allclose(whole, folded, rtol=1e-5)


@pytest.mark.parametrize("folded", [False, True], ids=["as exported", "folded"])
@pytest.mark.parametrize("scorer", ["magnitude", "snp", "random"])
def test_dead_channels_go_first(scorer: str, folded: bool) -> None:
    result = prune_graph(normalized(folded), 0.5, scorer=scorer)
    assert np.flatnonzero(result.selection.keep["channel.0"]).tolist() == LIVE.tolist()
    proof = result.report.verify
    assert proof is not None and proof.vacuous


def test_dims_of_heads_by_hand() -> None:
    """Queries times keys; values times what reads them; whole heads as their values."""
    model = attention.mha()
    analyzed = load_and_analyze(model)
    weights = {
        name: v.const_value.numpy() for name, v in analyzed.normalized.model.graph.initializers.items() if v.const_value
    }
    heads, width = attention.H, attention.D
    q, k, v = (_by_head(weights, f"w_{name}", f"b_{name}", heads, width) for name in "qkv")
    scores = scores_of(model)
    np.testing.assert_allclose(scores["qk_dim.0"], np.sqrt(q * k), rtol=1e-5)
    out = (weights["w_o"].astype(np.float64) ** 2).sum(axis=1).reshape(heads, width)
    np.testing.assert_allclose(scores["v_dim.0"], np.sqrt(v * out), rtol=1e-5)


def _by_head(weights: Mapping[str, Array], weight: str, bias: str, heads: int, width: int) -> Array:
    energy = (weights[weight].astype(np.float64) ** 2).sum(axis=0)
    energy = energy + weights[bias].astype(np.float64) ** 2 if bias in weights else energy
    return np.asarray(energy.reshape(heads, width))


@pytest.mark.parametrize("make", [attention.gqa_rope, attention.fused_qkv, blocks.vit, blocks.transformer_block])
def test_everything_has_a_score(make: Callable[[], onnx.ModelProto]) -> None:
    for name, scores in scores_of(make()).items():
        assert np.isfinite(scores).all() and (scores > 0).all(), name


def test_a_norm_that_adds_first_and_shows_no_sum_scores_as_the_two_nodes_do() -> None:
    def model(fused: bool) -> onnx.ModelProto:
        g = Builder("magnitude_skip_norm")
        h, skip = (g("MatMul", g.input(name, "batch", 8), g.weight(f"w_{name}", 8, UNITS)) for name in ("x", "y"))
        parameters = g.weight("gain", UNITS), g.weight("offset", UNITS)
        if fused:
            g.domains["com.microsoft"] = 1
            normed = g("SkipLayerNormalization", h, skip, *parameters, domain="com.microsoft", epsilon=1e-5)
        else:
            normed = g("LayerNormalization", g("Add", h, skip), *parameters, epsilon=1e-5)
        g.output(g("MatMul", normed, g.weight("w_out", UNITS, 5)), "batch", 5)
        return g.model(full_check=False)

    (fused,), (plain,) = (scores_of(model(fused)).values() for fused in (True, False))
    np.testing.assert_allclose(fused, plain, rtol=1e-6)


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("scorer", ["magnitude", "random"])
def test_dead_neurons_go_first_by_every_scorer_without_data(scorer: str, planted: str) -> None:
    result = prune_graph(mlp(ACTIVATIONS["relu"], **PLANTED[planted]).model(), {"ffn": 0.5}, scorer=scorer)
    assert np.flatnonzero(result.selection.keep["ffn.0"]).tolist() == LIVE.tolist()
