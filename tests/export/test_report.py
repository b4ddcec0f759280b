"""The report: what it says is what was decided, whatever names a file holds, and nothing is fetched to show it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import prunegraph as pg
from prunegraph.analysis.selection import Selection
from prunegraph.bench.profile import NodeTime
from prunegraph.export.report import render, render_html, render_markdown, report_facts
from tests.graphs.cli import classifier
from tests.graphs.small import analysed

LATENCY = {
    "results": [
        {"model": "model.onnx", "provider": "cpu", "median_ms": 2.0, "ratio": None},
        {"model": "slim.onnx", "provider": "cpu", "median_ms": 1.0, "ratio": {"median": 2, "low": 1.9, "high": 2.1}},
    ]
}
EVALUATION = {
    "metric": "accuracy",
    "examples": 100,
    "models": [{"model": "model.onnx", "value": 0.875, "low": 0.8, "high": 0.9, "change": None}],
}
SWEEP = [{"name": "2x", "latency_ms": 1.0, "metric": 0.87, "low": 0.86, "high": 0.88}]
SUMMARY = {"params": [1000, 500], "macs": [2_000_000, 1_000_000], "verify": {"exact": True, "max_rel_error": 1e-7}}
HOSTILE = '<script>alert(1)</script>|"&'


def facts(name: str = "model.onnx", **more: Any) -> dict[str, Any]:
    case = analysed("transformer_block")
    head = next(group for group in case.analysis.groups if group.kind == "head")
    keep = np.arange(head.units) != 1
    scores = {head.id: np.arange(head.units, dtype=float)}
    return report_facts(
        name,
        case.analysis,
        Selection({head.id: keep}),
        SUMMARY,
        version="1.2.3",
        scorers={head.id: "snp"},
        scores=scores,
        **more,
    )


def full(name: str = "model.onnx") -> dict[str, Any]:
    return facts(name, latency=LATENCY, evaluation=EVALUATION, sweep=SWEEP, commands=["prunegraph prune a.onnx"])


class Elements(HTMLParser):
    """Every element of a page; a tag that is not closed as it was opened raises."""

    EMPTY = ("meta", "rect", "path", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag not in self.EMPTY[:1]:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_facts_are_those_of_the_selection() -> None:
    report = facts()
    head = next(layer for layer in report["layers"] if "kept" in layer)
    assert head["kept"].count(False) == 1 and head["kept"][1] is False
    assert head["after"] == head["before"] - 1 and len(head["scores"]) == head["before"]
    others = [layer for layer in report["layers"] if layer is not head]
    assert others and all(layer["before"] == layer["after"] for layer in others)


@pytest.mark.parametrize("report", [facts(), full()], ids=["least", "everything"])
def test_the_page_is_well_formed_and_fetches_nothing(report: dict[str, Any]) -> None:
    page = render_html(report)
    elements = Elements(page)
    assert not re.search(r"(src|href)=\"?(https?:)?//", page) and "@import" not in page and "url(" not in page
    assert not [tag for tag, _ in elements.all if tag in ("script", "link", "iframe", "img")]
    assert all(attributes.get("aria-label") for tag, attributes in elements.all if tag == "svg")
    squares = [a for tag, a in elements.all if tag == "rect" and a.get("width") == "18"]
    heads = [stays for layer in report["layers"] if "kept" in layer for stays in layer["kept"]]
    assert [a["class"] for a in squares] == ["kept" if stays else "gone" for stays in heads]


def test_a_model_without_heads_or_widths_has_a_page() -> None:
    report = facts()
    heads = {**report, "layers": [layer for layer in report["layers"] if "kept" in layer]}
    widths = {**report, "layers": [layer for layer in report["layers"] if "kept" not in layer]}
    for each, there, gone in ((heads, "<h3>Heads", "<h3>Widths"), (widths, "<h3>Widths", "<h3>Heads")):
        page = render_html(each)
        assert there in page and gone not in page
        Elements(page)


def test_everything_that_was_measured_is_shown() -> None:
    page, text = render_html(full()), render_markdown(full())
    common = ("2.00", "0.8750", "over latency", "0.8600", "1.00 M", "-50.0", "slim.onnx", "prunegraph prune a.onnx")
    for shown in (*common, "accuracy"):
        assert shown in page and shown in text, shown


BLOCKS = {
    "units": {"head": 0.5, "ffn": 0.25},
    "a whole group": pg.Amount({"head": 0.5}, drop="ffn.1"),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_every_block_has_its_share(case: str) -> None:
    """Parameters and multiply-adds add up to those of the model, and milliseconds to those of all nodes."""
    result = pg.prune_graph(classifier(), BLOCKS[case], verify=False)
    spent = []
    for model in (result.analyzed.original, result.ir_model) if result.analyzed else ():
        nodes = [(node.op_type, [v.name or "" for v in node.outputs]) for node in model.graph]
        spent.append([NodeTime(op, 1.0, (), tuple(outputs)) for op, outputs in nodes])
        spent[-1].append(NodeTime("Fused", 0.5, (nodes[-1][1][0],), ("new",)))
        spent[-1].append(NodeTime("Reorder", 0.25, ("new",), ("newer",)))
    rows = result.facts(times=(spent[0], spent[1]))["where"]
    for end in (0, 1):
        assert sum((row["before"], row["after"])[end] for row in rows) == result.report.params[end]
        assert sum(row["macs"][end] for row in rows) == result.report.macs[end]
        assert sum(row["ms"][end] for row in rows) == pytest.approx(sum(each.ms for each in spent[end]))
    blocks = {row["block"]: row for row in rows}
    layers = [row for block, row in blocks.items() if "layer" in block]
    assert len(layers) == 2 and all(row["macs"][0] > row["macs"][1] > 0 for row in layers)
    page, text = (render({**full(), "where": rows}, suffix) for suffix in (".html", ".md"))
    assert "Milliseconds" in page and "| block | parameters | after | change | multiply-adds |" in text


def test_the_runtime_says_what_every_node_takes() -> None:
    """Of the graph that it made of the model: nothing is left out, whatever was fused."""
    result = pg.prune_graph(classifier(), {"ffn": 0.5}, verify=False)
    for model, times in zip((result.analyzed.original, result.ir_model), result.profile(sequence=4), strict=True):
        assert len(times) > 5 and all(each.ms >= 0 for each in times)
        assert model.graph.outputs[0].name in {name for each in times for name in each.outputs}


def test_names_from_a_file_stay_text() -> None:
    page, text = render_html(full(HOSTILE)), render_markdown(full(HOSTILE))
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert "</script>\\|" in text
