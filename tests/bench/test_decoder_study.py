"""The study of decoders: what is chosen on the validation split, and what the tables say of records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from benchmarks.decoder import DEFAULT, GOAL_SHARE, LAYER, PLANS, Case, chosen_layer, chosen_plan, ratio, sections
from benchmarks.decoder_models import LAYERS
from benchmarks.harness import Records

WINDOWS = 40


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Of a model whose neurons and third layer cost least on the validation split, and most on the test split."""
    records, dense = Records(tmp_path / "decoder.jsonl"), np.random.default_rng(0).uniform(3, 5, WINDOWS)

    def keep(split: str, plan: str, share: float, scorer: str, way: str, gap: float) -> None:
        facts = {"params": 1000 if plan == "dense" else 0.8, "words": 0.25, "error": 1e-6}
        records.keep(str(Case("gpt2", 0, split, plan, share, scorer, way)), {"losses": list(dense + gap), **facts})

    for split, sign in {"validation": 1, "test": -1}.items():
        keep(split, "dense", 0.0, "", "", 0.0)
        for plan in PLANS:
            keep(split, plan, GOAL_SHARE, DEFAULT, "auto", 0.2 - sign * 0.1 * (plan == "neurons"))
        for k in range(LAYERS):
            keep(split, f"layer {k}", 0.0, LAYER, "auto", 0.5 - sign * 0.1 * (k == 2))
    return records


def test_the_validation_split_chooses(records: Records) -> None:
    assert (chosen_plan(records, "gpt2", 0), chosen_layer(records, "gpt2", 0)) == ("neurons", 2)


def test_the_test_split_judges(records: Records) -> None:
    times = ratio(records, Case("gpt2", 0, "test", "neurons", GOAL_SHARE, DEFAULT, "auto"))
    assert times is not None
    assert tuple(times) == pytest.approx([np.exp(0.3)] * 3)  # every window loses alike, so the interval is a point


def test_tables_say_what_was_measured_and_leave_the_rest_empty(records: Records) -> None:
    goal, scorers, layer, plans = sections(records, [("gpt2", 0)])
    assert goal.rows[0][2:] == ["x 1.350 [1.350, 1.350]", "x 1.15", "no"]
    assert [cell for row in scorers.rows for cell in row[1:] if cell] == ["1.350 [1.350, 1.350]"]
    assert layer.rows[0][1:4] == ["3 of 4", "80%", "1.822 [1.822, 1.822]"]
    assert plans.rows[0][2] == "1.105 [1.105, 1.105]"
