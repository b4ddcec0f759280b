"""The report: what it says is what was decided, whatever names a file holds, and nothing is fetched to show it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from prunegraph.analysis.selection import Selection
from prunegraph.export.report import render_html, render_markdown, report_facts
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
    for shown in ("2.00", "0.8750", "1.00 M", "-50.0", "slim.onnx", "prunegraph prune a.onnx", "accuracy"):
        assert shown in page and shown in text, shown


def test_names_from_a_file_stay_text() -> None:
    page, text = render_html(full(HOSTILE)), render_markdown(full(HOSTILE))
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert "</script>\\|" in text
