"""The accuracy study in small: turned beats chosen, swept beats cut, and the page says what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import prunegraph as pg
from benchmarks.accuracy_page import Case, Cell, lost, render
from benchmarks.accuracy_study import Arm, Dense, Study, record
from benchmarks.harness import Records
from benchmarks.judge import right
from prunegraph.runtime.session import open_session, run
from tests.graphs.builder import Builder, Operand, layer_norm, linear

pytestmark = pytest.mark.slow

WIDTH, HEADS, HEAD_DIM, TOKENS, CLASSES = 24, 2, 8, 6, 5
INNER = HEADS * HEAD_DIM
CHOSEN = {"qk_dim": "snp", "v_dim": "activation", "ffn": "activation", "hidden": "activation"}


def classifier() -> onnx.ModelProto:
    """Tokens, two post-norm blocks of attention and FFN, classes of the mean; scores are sharp enough to matter."""
    g = Builder("classifier")
    h = layer_norm(g, linear(g, g.input("x", "B", TOKENS, 8), "in", 8, WIDTH), "norm", WIDTH)
    for k in range(2):
        parts = [g("Reshape", linear(g, h, f"{n}{k}", WIDTH, INNER), [0, 0, HEADS, HEAD_DIM]) for n in "qkv"]
        split: list[Operand] = [g("Transpose", part, perm=[0, 2, 1, 3]) for part in parts]
        for name in (f"w_q{k}", f"w_k{k}"):
            g.initializers[name] *= 2
        scores = g("Softmax", g("MatMul", split[0], g("Transpose", split[1], perm=[0, 1, 3, 2])), axis=-1)
        mixed = g("Reshape", g("Transpose", g("MatMul", scores, split[2]), perm=[0, 2, 1, 3]), [0, 0, INNER])
        h = layer_norm(g, g("Add", linear(g, mixed, f"o{k}", INNER, WIDTH), h), f"first{k}", WIDTH)
        up = g("Relu", linear(g, h, f"up{k}", WIDTH, 32))
        h = layer_norm(g, g("Add", linear(g, up, f"down{k}", 32, WIDTH), h), f"second{k}", WIDTH)
    g.output(linear(g, g("ReduceMean", h, axes=[1], keepdims=0), "head", WIDTH, CLASSES), "B", CLASSES)
    return g.model()


@pytest.fixture(scope="module")
def dense() -> Dense:
    """The model, and data that it is always right on."""
    model, rng = classifier(), np.random.default_rng(0)
    mixed = rng.normal(size=(5, 8))
    x = (rng.normal(size=(700, TOKENS, 5)) @ mixed).astype(np.float32)
    with open_session(ir.from_proto(model)) as session:
        label = np.concatenate([run(session, {"x": part})[0].argmax(axis=-1) for part in np.split(x, 7)])
    assert len(np.unique(label)) > 2
    calibration, test = ({"x": x[at], "label": label[at]} for at in (slice(0, 300), slice(300, 700)))
    return Dense(model, *(pg.Data(each, batch_size=100) for each in (calibration, test, test)))


def points_lost(on: Dense, study: Study, amount: pg.Amount, arm: Arm) -> dict[str, float]:
    inputs = on.graph.inputs(on.test.opened())
    return {
        slim.way: 100 - 100 * float(right(slim.model, inputs).mean()) for slim in study.slims(amount, arm, verify=True)
    }


def test_the_dense_model_is_always_right(dense: Dense) -> None:
    assert right(dense.graph.original, dense.graph.inputs(dense.test.opened())).all()


def test_turned_dims_lose_less_than_chosen_ones(dense: Dense) -> None:
    study, amount = Study(dense), pg.Amount(ratio={"qk_dim": 0.5, "v_dim": 0.5})
    turned = points_lost(dense, study, amount, Arm("turned", None, "activation", ("none", "auto")))
    chosen = points_lost(dense, study, amount, Arm("chosen", False, CHOSEN, ("none", "auto")))
    assert turned["none"] < chosen["none"] and turned["auto"] < chosen["auto"]


def test_a_swept_stream_loses_less_than_a_cut_one(dense: Dense) -> None:
    arm = Arm("chosen", None, "activation", ("none", "auto"))
    costs = points_lost(dense, Study(dense), pg.Amount(keep={"hidden": 18}), arm)
    assert costs["auto"] < 0.8 * costs["none"]


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_has_every_cell_met_or_not_or_not_measured(tmp_path: Path) -> None:
    arms = (
        Arm("default", None, "activation"),
        Arm("labels", None, "taylor", labels=True),
        Arm("other", None, "activation", ("once",)),
    )
    cells = (Cell("met", pg.Amount(), ("a",), 1.0), Cell("missed", pg.Amount(), ("a", "b"), 1.0))
    records = Records(tmp_path / "records.jsonl")
    right = np.arange(200) % 10 != 0
    for seed in range(2):
        records.keep(str(Case("a", seed, "test", "whole", "", "")), record(right))
        records.keep(str(Case("a", seed, "test", "met", "default", "auto")), record(right))
        worse = right & (np.arange(200) >= 20)
        records.keep(str(Case("a", seed, "test", "missed", "default", "auto")), record(worse))
    for seed in range(2):
        records.keep(str(Case("a", seed, "validation", "whole", "", "")), record(right))
        for way, answers in (("once", worse), ("auto", right)):
            records.keep(str(Case("a", seed, "validation", "missed", "default", way)), record(answers))
    records.keep(str(Case("a", 0, "test", "met", "labels", "auto")), record(right, ways={"none": 1.0}, way="none"))
    cost = lost(records.recall, "a", "test", "missed", "default", "auto")
    assert cost is not None and cost.seeds == 2 and cost.points == pytest.approx(9) and 0.01 < cost.half < 0.06
    page = tmp_path / "accuracy.md"
    render(records.recall, page, calibration=7, cells=cells, arms=arms, sweeps=cells, choices=(), scorers=())
    text = page.read_text()
    assert "| met | a | repaired | 90.0% | 90.0% | +0.0 ± 0.0 (2) | 1.0 | yes |" in text
    assert "| missed | a | repaired | 90.0% | 81.0% | +9.0 ±" in text and "| 1.0 | no |" in text
    assert "| missed | b |  |  |  | not measured | 1.0 |  |" in text
    assert "| missed | a | +9.0 ±" in text and "| +0.0 ± 0.0 (2) |\n" in text  # on validation, at once and by default
    assert "| met | labels | repaired | yes | +0.0 ± 0.0 (1) |" in text and (tmp_path / "accuracy.png").is_file()
