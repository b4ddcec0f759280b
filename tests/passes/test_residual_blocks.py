"""Whole residual blocks of convolutions go where a caller says so, as sub-blocks of Transformers do."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import prunegraph as pg
from prunegraph.errors import NothingToPrune
from prunegraph.passes.prove.mask import masked
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from tests.graphs import vision
from tests.graphs.builder import Builder, conv, layer_norm, linear
from tests.graphs.run import outputs
from tests.graphs.vision import classify, image


def batch_norm(g: Builder, x: str, name: str, channels: int) -> str:
    parts = [g.weight(f"{name}_{part}", channels, scale=0.5) for part in ("scale", "bias", "mean")]
    variance = g.const(f"{name}_var", g.rng.uniform(0.5, 2, channels), np.float32)
    return str(g("BatchNormalization", x, *parts, variance))


def bottleneck() -> onnx.ModelProto:
    """ResNet: three convolutions with batch norms, a sum, and a rectifier behind it; then one that halves the image."""
    g = Builder("bottleneck")
    h = image(g, 12)
    for name in ("one", "two"):
        y = g("Relu", batch_norm(g, conv(g, h, f"{name}_a", 12, 7, 1), f"{name}_bn_a", 7))
        y = g("Relu", batch_norm(g, conv(g, y, f"{name}_b", 7, 8), f"{name}_bn_b", 8))
        y = batch_norm(g, conv(g, y, f"{name}_c", 8, 12, 1), f"{name}_bn_c", 12)
        h = g("Relu", g("Add", h, y))
    y = g("Relu", conv(g, h, "down_a", 12, 9, strides=[2, 2]))
    h = g("Add", conv(g, h, "shortcut", 12, 16, 1, strides=[2, 2]), conv(g, y, "down_b", 9, 16))
    return classify(g, g("Relu", h), 16)


def normed_after() -> onnx.ModelProto:
    """A batch norm stands behind the sum, as in networks that normalize first."""
    g = Builder("normed_after")
    h = image(g, 12)
    h = batch_norm(g, g("Add", h, conv(g, g("Relu", conv(g, h, "a", 12, 7)), "b", 7, 12)), "bn", 12)
    return classify(g, g("Relu", h), 12)


def conv_next() -> onnx.ModelProto:
    """A depthwise convolution, a norm over the channels, two layers, and a scale before the sum."""
    g = Builder("conv_next")
    h = image(g, 12)
    y = g("Transpose", conv(g, h, "dw", 12, 12, group=12), perm=[0, 2, 3, 1])
    y = linear(g, g("Tanh", linear(g, layer_norm(g, y, "norm", 12), "up", 12, 20)), "down", 20, 12)
    y = g("Transpose", g("Mul", y, g.weight("gamma", 12)), perm=[0, 3, 1, 2])
    return classify(g, g("Add", h, y), 12)


Make = Callable[[], onnx.ModelProto]
BLOCKS: dict[str, tuple[Make, str, tuple[str, ...]]] = {
    "basic": (vision.residual_bn, "w_a", ("w_a", "w_b")),
    "bottleneck, by the first": (bottleneck, "w_one_a", ("w_one_a", "w_one_b", "w_one_c")),
    "bottleneck, by the second": (bottleneck, "w_two_b", ("w_two_a", "w_two_b", "w_two_c")),
    "halves the image": (bottleneck, "w_down_a", ("w_down_a", "w_down_b")),
    "inverted": (vision.depthwise, "w_expand", ("w_expand", "w_dw", "w_squeeze", "w_excite", "w_project")),
    "grouped": (vision.grouped, "w_b", ("w_a", "w_b", "w_c")),
    "on one half": (vision.c2f, "w_m1", ("w_m1", "w_m2")),
    "normed behind the sum": (normed_after, "w_a", ("w_a", "w_b")),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_goes_whole(name: str) -> None:
    """What is left is the stream and the block's constant: the original with all channels inside of it masked."""
    make, inside, gone = BLOCKS[name]
    original = make()
    graph = pg.analyze(original)
    group = next(g for g in graph.groups if g.kind == "channel" and (inside, 0) in {(p.name, p.axis) for p in g.places})
    result = pg.prune_graph(original, pg.Amount(drop=[group.id]))
    slim = ir.to_proto(result.ir_model)
    onnx.checker.check_model(slim, full_check=True)
    left = {tensor.name for tensor in slim.graph.initializer}
    assert not left & set(gone), left
    assert (group.id, 0) in {(each.id, each.after) for each in result.report.groups}
    assert result.report.macs[1] < result.report.macs[0]
    proof = result.report.verify
    assert proof is not None and proof.ok and proof.moved > 1e-3
    keeps = result.selection.keeps(graph.groups)
    oracle = masked(graph.normalized.model, graph.solution, keeps)
    x = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(outputs(slim, x)[0], outputs(oracle, x)[0], rtol=1e-4, atol=1e-5)


def test_a_block_of_layers_goes_too() -> None:
    original = conv_next()
    result = pg.prune_graph(original, pg.Amount(drop=["ffn.*"]))
    left = {tensor.name for tensor in result.model.graph.initializer}
    assert not left & {"w_dw", "w_up", "w_down"} and result.report.verify is not None


def test_all_that_can_go_goes_and_the_stem_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Channels that nothing goes around keep a unit; what goes around them is no reason to keep a block."""
    with caplog.at_level(logging.WARNING, logger="prunegraph.passes.choose.whole_layers"):
        result = pg.prune_graph(bottleneck(), pg.Amount(drop=["channel.*"]))
    convs = [node.input[1] for node in result.model.graph.node if node.op_type == "Conv"]
    assert convs == ["w_in", "w_shortcut"]
    assert "cannot go whole" in caplog.text


def test_a_chain_has_no_block() -> None:
    with pytest.raises(NothingToPrune, match=r"none of .* can go whole"):
        pg.prune_graph(vision.conv_flatten_gemm(), pg.Amount(drop=["channel.*"]))


def test_no_ratio_takes_a_block() -> None:
    result = pg.prune_graph(bottleneck(), 0.9)
    assert all(group.after > 0 for group in result.report.groups)


def test_a_wrong_constant_of_a_block_is_refused() -> None:
    original = vision.residual_bn()
    graph = pg.analyze(original)
    group = next(g for g in graph.groups if any((p.name, p.axis) == ("w_a", 0) for p in g.places))
    result = pg.prune_graph(original, pg.Amount(drop=[group.id]))
    slim = ir.to_proto(result.ir_model)
    names = {tensor.name: tensor for tensor in slim.graph.initializer}
    (constant,) = (tensor for name, tensor in names.items() if "constant" in name)
    numbers = onnx.numpy_helper.to_array(constant)
    constant.CopyFrom(onnx.numpy_helper.from_array(numbers * 1.5, constant.name))
    assert not pg.verify(original, slim, result.selection).ok


def test_it_is_the_same_by_hand() -> None:
    graph = pg.analyze(bottleneck())
    keep = {g.id: [] for g in graph.groups if any(p.name.startswith("w_one_a") and p.axis == 0 for p in g.places)}
    selection = pg.Selection.of(graph.groups, keep=keep)
    slim = remove_whole_groups(graph.normalized.model, graph.solution, selection.keeps(graph.groups))
    assert not slim.refused
