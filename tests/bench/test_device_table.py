"""Latency tables as data: what is written is read, what is no table is refused; and which cuts they are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunegraph as pg
from prunegraph.bench.device_table import WHOLE, Cut, LatencyTable
from prunegraph.bench.results import Comparison, Latency
from prunegraph.bench.stats import PairedRatio
from prunegraph.errors import UsageError
from prunegraph.speed.blocks import blocks_of
from prunegraph.speed.cuts import EVERYTHING, cut_model, table_cuts
from tests.graphs.blocks import transformer_block

GROUPS = {"head.0": 12, "ffn.0": 64}
CUTS = (Cut("half of the heads", {"head.0": 6}), Cut("no neuron", {"ffn.0": 0}))


def latency(model: str, ms: float, ratio: float | None) -> Latency:
    paired = None if ratio is None else PairedRatio(ratio, ratio, ratio)
    fields: dict[str, Any] = {"load_seconds": 0.0, "first_run_ms": 0.0, "nodes": {}, "ratio": paired}
    return Latency.from_samples(np.full(6, ms), provider="cpu", ep="CPUExecutionProvider", model=model, **fields)


def comparison() -> Comparison:
    rows = (latency(WHOLE, 4.0, None), latency(CUTS[0].name, 2.0, 2.0), latency(CUTS[1].name, 1.0, 4.0))
    return Comparison(rows, {"x": (1, 8)}, {"sequence": 8}, 1, 10, 0, {"cpu": "a board"}, "blocks")


def table() -> LatencyTable:
    return LatencyTable.of([comparison()], CUTS, model="abc", groups=GROUPS, provider="cpu", forms=("a form",))


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table().save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table()
    assert table().protocol == "blocks" and table().whole_ms == 4.0
    assert [cut.ratio.median for cut in table().cuts] == [2.0, 4.0]


def test_results_of_a_device_become_a_table() -> None:
    brought_back = Comparison.from_dict(comparison().to_dict(samples=True))
    assert (
        LatencyTable.of([brought_back], CUTS, model="abc", groups=GROUPS, provider="cpu", forms=("a form",)) == table()
    )


def test_a_cut_that_was_not_timed_is_missed() -> None:
    with pytest.raises(UsageError, match="'a third' was not timed"):
        LatencyTable.of([comparison()], [Cut("a third", {})], model="", groups=GROUPS, provider="cpu")
    with pytest.raises(UsageError, match="was not timed on cuda"):
        LatencyTable.of([comparison()], CUTS, model="", groups=GROUPS, provider="cuda")


@pytest.mark.parametrize(
    "change",
    [
        {"what": "results"},
        {"schema": 2},
        {"cuts": [{"name": "more than all", "kept": {"head.0": 13}, "ratio": {"median": 1, "low": 1, "high": 1}}]},
        {"cuts": [{"name": "never", "kept": {}, "ratio": {"median": 0, "low": 0, "high": 0}}]},
        {"groups": []},
    ],
)
def test_what_is_no_table_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(json.dumps({**table().to_dict(), **change}))
    with pytest.raises(UsageError) as error:
        LatencyTable.load(tmp_path / "table.json")
    assert "prunegraph table" in error.value.hint


def test_no_file_and_no_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("{")
    for name in ("table.json", "none.json"):
        with pytest.raises(UsageError, match="cannot be read"):
            LatencyTable.load(tmp_path / name)


def test_dims_inside_of_heads_are_of_one_block_and_alike_blocks_are_cut_together() -> None:
    graph = pg.analyze(transformer_block())
    blocks = blocks_of(graph, [group.id for group in graph.groups if group.kind != "hidden"])
    assert [[group.id for group in block.groups] for block in blocks] == [
        ["head.0", "qk_dim.0", "v_dim.0"],
        ["ffn.0"],
        ["head.1", "qk_dim.1", "v_dim.1"],
        ["ffn.1"],
    ]
    cuts = table_cuts(blocks)
    assert all(set(cut.kept) in ({"head.0", "head.1"}, {"ffn.0", "ffn.1"}) for cut in cuts if "head" in cut.name)
    assert cuts[-1] == Cut(EVERYTHING, {"head.0": 0, "ffn.0": 0, "head.1": 0, "ffn.1": 0})
    assert len({cut.name for cut in cuts}) == len(cuts)


def test_every_cut_is_a_smaller_model() -> None:
    graph = pg.analyze(transformer_block())
    cuts = table_cuts(blocks_of(graph, ["head.0", "head.1", "v_dim.0", "v_dim.1"]))
    sizes = [sum(v.const_value.size for v in cut_model(graph, cut).graph.initializers.values()) for cut in cuts]
    assert all(size < graph.params for size in sizes) and sizes[-1] == min(sizes)


def test_groups_that_may_not_get_smaller_stay_out() -> None:
    graph = pg.analyze(transformer_block())
    (block,) = blocks_of(graph, ["qk_dim.0"])
    assert block.main.id == "qk_dim.0" and block.least == 1 and not block.inner
    assert replace(block, macs=0.0).likeness != block.likeness
