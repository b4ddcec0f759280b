"""Another basis for the residual stream: the turned model is the original, and directions without use cost nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import prunegraph as pg
from prunegraph.cli import app
from prunegraph.passes.rotate.stream import seen_by_norm, stream_basis
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder, layer_norm, linear
from tests.graphs.odd import retyped
from tests.graphs.skeleton import load_skeleton

WIDTH, TOKENS = 10, 5
NORMS = {"LayerNormalization": True, "RMSNormalization": False}


def vit(norm: str = "LayerNormalization", spoil: str = "", shift: float = 0.5) -> Builder:
    """Patches, a class token, positions, one head of attention, an FFN, the norms first.

    Args:
        norm: The op of the norms.
        spoil: What keeps the stream in its basis.
        shift: The size of the offsets of norms.
    """
    g, width = Builder("stream", 23), WIDTH
    kernel = g.weight("w_patch", width, 3, 4, 4)
    h = g("Conv", g.input("x", "B", 3, 8, 8), kernel, g.weight("b_patch", width), strides=[4, 4])
    h = g("Transpose", g("Reshape", h, [0, width, 4]), perm=[0, 2, 1])
    batch = g("Slice", g("Shape", h), [0], [1])
    token = g("Expand", g.weight("cls_token", 1, 1, width), g("Concat", batch, [1, width], axis=0))
    h = g("Add", g("Concat", token, h, axis=1), g.weight("pos_embed", 1, TOKENS, width))

    def normed(h: str, name: str) -> str:
        if norm == "LayerNormalization":
            y = layer_norm(g, h, name, width)
            g.initializers[f"{name}_bias"][:] *= shift
            return y
        return g(norm, h, g.const(f"{name}_scale", g.rng.uniform(0.5, 2, width), np.float32), axis=-1)

    q, k, v = (linear(g, first, part, width, 4) for first in (normed(h, "norm0"),) for part in "qkv")
    scores = g("Softmax", g("MatMul", q, g("Transpose", k, perm=[0, 2, 1])), axis=-1)
    h = g("Add", h, linear(g, g("MatMul", scores, v), "o", 4, width))
    if spoil == "a gain along it":
        h = g("Mul", h, g.weight("scale", width))
    if spoil == "an activation function":
        h = g("Relu", h)
    second = normed(h, "norm1")
    up = linear(g, second, "up", width, 14, bias="no bias" not in spoil)
    if "a dead gain" in spoil:
        g.initializers["norm1_scale"][3] = 0
    if spoil == "post-norm":
        h = second
    if spoil == "an output":
        g.output(h, "B", TOKENS, width)
    h = g("Add", h, linear(g, g("Gelu", up), "down", 14, width))
    g.output(linear(g, g("Gather", normed(h, "norm2"), np.array(0), axis=1), "fc", width, 5), "B", 5)
    return g


WRITERS = ("w_patch", "b_patch", "cls_token", "pos_embed", "w_o", "b_o", "w_down", "b_down")


def narrow(g: Builder, directions: int, others: float = 0) -> onnx.ModelProto:
    """The stream takes so many directions, and of the others a small part."""
    every = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0]
    carried = every * np.where(np.arange(WIDTH) < directions, 1, others)
    for name in WRITERS:
        array, axis = g.initializers[name], 0 if name == "w_patch" else -1
        g.initializers[name] = np.moveaxis(np.moveaxis(array, axis, -1) @ carried @ every.T, -1, axis).astype("f4")
    return g.model()


def images(count: int = 24) -> Mapping[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def output(model: ir.Model | onnx.ModelProto) -> np.ndarray:
    with open_session(model if isinstance(model, ir.Model) else ir.from_proto(model)) as session:
        return run(session, images())[0]


def apart(a: ir.Model | onnx.ModelProto, b: ir.Model | onnx.ModelProto) -> float:
    left, right = output(a), output(b)
    return float(np.abs(left - right).max() / np.abs(left).max())


# ---- the basis itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 5, 7])
@pytest.mark.parametrize("centred", NORMS.values())
def test_the_basis_keeps_lengths_and_means_and_its_energies_descend(width: int, centred: bool) -> None:
    moments = seen_by_norm(np.random.default_rng(3).normal(size=(40, 7)) @ np.diag(np.arange(1.0, 8)), centred=centred)
    basis = stream_basis(moments, width, centred=centred)
    assert np.allclose(basis.matrix @ basis.matrix.T, np.eye(7))
    assert not centred or np.allclose(basis.matrix.sum(axis=1), 1)
    assert (np.diff(basis.energy) < 0).all()
    assert (width == 1 and centred) or np.isclose(basis.energy.sum(), np.trace(moments), rtol=1e-3)


def test_cut_to_its_width_a_position_keeps_its_first_directions_whatever_the_others_hold() -> None:
    rng = np.random.default_rng(4)
    samples = rng.normal(size=(60, 9)) @ np.diag(np.arange(9.0, 0, -1))
    basis = stream_basis(seen_by_norm(samples), 4)
    values, vectors = np.linalg.eigh(seen_by_norm(samples))
    x = rng.normal(size=(5, 9))
    cut = (x @ basis.matrix)[:, :4]
    projected = (x - x.mean(axis=1, keepdims=True)) @ vectors[:, np.argsort(-values)[:3]]
    assert np.allclose(np.linalg.norm(cut - cut.mean(axis=1, keepdims=True), axis=1), np.linalg.norm(projected, axis=1))


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_a_turned_stream_computes_what_it_did(norm: str) -> None:
    model = vit(norm).model()
    graph = pg.analyze(model)
    turned = graph.rotate(images(), groups=["hidden.0"], kept={"hidden.0": 6})
    assert turned.rotated is not None and list(turned.rotated.rotation) == ["hidden.0"]
    weights = [each.normalized.model.graph.initializers["w_up"].const_value for each in (graph, turned)]
    assert all(each is not None for each in weights)
    assert np.abs(weights[0].numpy() - weights[1].numpy()).max() > 0.1  # type: ignore[union-attr]
    assert apart(model, turned.normalized.model) < 1e-5


@pytest.mark.parametrize("norm", NORMS)
def test_directions_that_carry_nothing_cost_nothing(norm: str) -> None:
    model = narrow(vit(norm), 5)
    for width, exact in ((6, True), (4, False)):
        result = pg.prune_graph(model, pg.Amount(keep={"hidden": width}), data=images(), after=[])
        assert result.report.rotate is not None and result.report.rotate.error < 1e-5
        assert result.report.verify is not None and result.report.verify.ok
        assert (apart(model, result.ir_model) < 1e-4) == exact


@pytest.mark.parametrize("norm", NORMS)
def test_a_cut_stream_is_nearer_than_a_selected_one_before_and_after_repair(norm: str) -> None:
    model = narrow(vit(norm), 5, 0.001)
    for after in ([], [pg.Repair()]):
        errors = {}
        for rotate in (True, False):
            amount = pg.Amount(keep={"hidden": 6}, rotate=rotate)
            result = pg.prune_graph(model, amount, scorer="activation", data=images(), after=after)
            errors[rotate] = apart(model, result.ir_model)
        assert errors[True] < 0.7 * errors[False]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ("a gain along it", "varies along it"),
        ("an activation function", "is not linear along it"),
        ("post-norm", "part of the stream"),
        ("no bias, a dead gain", "next to nothing"),
    ],
)
def test_what_keeps_a_stream_in_its_basis_is_named(spoil: str, what: str) -> None:
    assert what in pg.analyze(vit(spoil=spoil).model()).bases["hidden.0"]


@pytest.mark.parametrize("norm", NORMS)
def test_an_offset_that_no_bias_takes_stays_and_turns(norm: str) -> None:
    graph = pg.analyze(vit(norm, "no bias").model())
    assert graph.bases["hidden.0"] == ""
    turned = graph.rotate(images(), groups=["hidden.0"], kept={"hidden.0": 6})
    assert apart(graph.original, turned.normalized.model) < 1e-5


def decoder(gain: float | None, *, tied: bool = True) -> onnx.ModelProto:
    """A table of words, positions, an FFN behind a norm, and the table again behind the last norm, as in GPT-2.

    Args:
        gain: That of the last norm; it varies if None.
        tied: Whether the same table reads; else one that is as good as a copy, without the bias of a layer.
    """
    g = Builder("decoder", 20)
    ids = g.input("ids", "B", TOKENS, dtype=onnx.TensorProto.INT64)
    h = g("Add", g("Gather", g.weight("table", 23, WIDTH, scale=1.0), ids), g.weight("places", 1, TOKENS, WIDTH))
    up = g("Gelu", linear(g, layer_norm(g, h, "norm0", WIDTH), "up", WIDTH, 14))
    h = g("Add", h, linear(g, up, "down", 14, WIDTH))
    last = layer_norm(g, h, "norm1", WIDTH)
    if gain is not None:
        g.initializers["norm1_scale"][:] = gain
    if not tied:
        g.const("head", g.initializers["table"] * 1.01, np.float32)
    g.output(g("MatMul", last, g("Transpose", "table" if tied else "head", perm=[1, 0])), "B", TOKENS, 23)
    return g.model()


def words(count: int = 24) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(0).integers(0, 23, (count, TOKENS))}


@pytest.mark.parametrize("tied", [True, False])
def test_a_table_that_writes_and_reads_turns_once(tied: bool) -> None:
    model = decoder(1.3 if tied else None, tied=tied)
    result = pg.prune_graph(model, pg.Amount(keep={"hidden": 7}), data=words(), after=[])
    report = result.report
    assert report.rotate is not None and list(report.rotate.rotation) == ["hidden.0"] and report.rotate.error < 1e-5
    assert report.verify is not None and report.verify.ok and result.verify().ok
    assert report.params[1] < 0.75 * report.params[0]


def test_gpt_2_turns_as_it_is_exported() -> None:
    assert pg.analyze(load_skeleton("zoo_gpt2")).bases["hidden.0"] == ""


def test_a_gain_that_a_tied_table_cannot_take_is_named() -> None:
    assert "whose gain it cannot take" in pg.analyze(decoder(None)).bases["hidden.0"]


def test_without_offsets_no_bias_is_needed_and_a_shown_stream_is_pinned() -> None:
    assert pg.analyze(vit("RMSNormalization", "no bias").model()).bases["hidden.0"] == ""
    assert "hidden.0" not in pg.analyze(vit(spoil="an output").model()).bases


@pytest.mark.parametrize(("format_", "dtype"), [("FLOAT16", np.float16), ("BFLOAT16", ml_dtypes.bfloat16)])
def test_sixteen_bits_are_turned_in_sixty_four(format_: str, dtype: Any) -> None:
    model = retyped(vit(spoil="no bias").model(), getattr(onnx.TensorProto, format_))
    data = {"x": images()["x"].astype(dtype)}
    report = pg.prune_graph(model, pg.Amount(keep={"hidden": 6}), data=data, after=[]).report
    assert (
        report.rotate is not None and list(report.rotate.rotation) == ["hidden.0"] and report.rotate.error is not None
    )
    assert report.rotate.error < 4 * float(ml_dtypes.finfo(dtype).eps)
    assert report.verify is not None and report.verify.ok


def test_an_offset_that_was_turned_is_proven(tmp_path: Path) -> None:
    whole, slim = tmp_path / "whole.onnx", tmp_path / "slim.onnx"
    onnx.save(vit(spoil="no bias").model(), whole)
    pg.prune_graph(whole, pg.Amount(keep={"hidden": 6}), data=images(), after=[]).save(slim)
    assert CliRunner().invoke(app, ["verify", str(whole), str(slim)]).exit_code == 0
    model = onnx.load(slim)
    (offset,) = (each for each in model.graph.initializer if each.name == "norm1_bias")
    assert np.abs(numpy_helper.to_array(offset)).max() > 0.1
    offset.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(offset) * 1.1, offset.name))
    onnx.save(model, slim)
    assert CliRunner().invoke(app, ["verify", str(whole), str(slim)]).exit_code == 1


def test_without_data_or_a_width_a_stream_stays() -> None:
    graph = pg.analyze(vit().model())
    for turned in (graph.rotate(kept={"hidden.0": 6}), graph.rotate(images())):
        assert turned.rotated is not None and "hidden.0" in turned.rotated.reasons


def test_a_written_model_is_proven_from_its_plan_and_tampering_is_refused(tmp_path: Path) -> None:
    whole, slim, plan = tmp_path / "whole.onnx", tmp_path / "slim.onnx", tmp_path / "slim.plan.json"
    onnx.save(vit().model(), whole)
    result = pg.prune_graph(whole, pg.Amount(keep={"hidden": 6, "qk_dim": 2}), data=images(), after=[pg.Repair()])
    assert result.verify().ok
    result.save(slim)
    verified = ["verify", str(whole), str(slim)]
    assert CliRunner().invoke(app, verified).exit_code == 0
    stated = json.loads(plan.read_text())
    assert {"hidden.0", "qk_dim.0"} <= set(stated["rotate"])
    other = stream_basis(np.eye(WIDTH), 6).matrix
    for matrix in (np.eye(WIDTH), other, 2 * other, np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]):
        entry = pg.passes.rotate.plan.to_plan({"hidden.0": pg.passes.rotate.Turned((matrix[None],), np.zeros(0), True)})
        plan.write_text(json.dumps({**stated, "rotate": {**stated["rotate"], **entry}}))
        assert CliRunner().invoke(app, verified).exit_code == 1
    plan.write_text(json.dumps(stated))
    model = onnx.load(slim)
    (weight,) = (each for each in model.graph.initializer if each.name == "cls_token")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.1, weight.name))
    onnx.save(model, slim)
    assert CliRunner().invoke(app, verified).exit_code == 1
