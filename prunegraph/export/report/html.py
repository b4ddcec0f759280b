"""The report as one HTML file that needs nothing else: styles and charts are inside, nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from prunegraph.export.report.facts import speed_rows
from prunegraph.export.report.svg import before_and_after, curve, head_map
from prunegraph.extras import needs_extra


def render_html(facts: Mapping[str, Any]) -> str:
    """The page for what `report_facts` gathered.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    with needs_extra("report", "jinja2"):
        from jinja2 import Environment, StrictUndefined
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": count, "share": share}
    folder = files("prunegraph.export.report")
    style = (folder / "style.css").read_text(encoding="utf-8")
    source = (folder / "report.html.j2").read_text(encoding="utf-8")
    speeds = speed_rows(facts["speed"]) if facts.get("speed") else []
    return environment.from_string(source).render(facts=facts, charts=_charts(facts), style=style, speeds=speeds)


def count(number: float) -> str:
    """A number for people: 17.24 M.

    >>> count(17_240_000), count(950)
    ('17.24 M', '950')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def share(before: float, after: float) -> str:
    """The change from one number to another: -50.0 %.

    >>> share(10, 5), share(0, 5)
    ('-50.0 %', '')
    """
    return f"{(after - before) / before:+.1%}".replace("%", " %") if before else ""


def _charts(facts: Mapping[str, Any]) -> dict[str, str]:
    layers = facts["layers"]
    heads = [layer for layer in layers if "kept" in layer]
    widths = [(layer["id"], layer["before"], layer["after"]) for layer in layers if "kept" not in layer]
    kinds = [(k["kind"], k["before"], k["after"]) for k in facts["kinds"]]
    charts = dict.fromkeys(("heads", "head_scorers", "widths", "sweep", "where", "where_macs", "where_ms"), "")
    charts["kinds"] = before_and_after(kinds, "Units")
    if facts.get("where"):
        blocks = [(row["block"], row["before"], row["after"]) for row in facts["where"]]
        charts["where"] = before_and_after(blocks, "Parameters of every block")
        if any("macs" in row for row in facts["where"]):
            macs = [(row["block"], *row["macs"]) for row in facts["where"]]
            charts["where_macs"] = before_and_after(macs, "Multiply-adds of every block")
        if any("ms" in row for row in facts["where"]):
            spent = [(row["block"], *row["ms"]) for row in facts["where"]]
            charts["where_ms"] = before_and_after(spent, "Milliseconds of every block")
    if heads:
        charts["heads"] = head_map(heads)
        scored = (layer["scorer"] for layer in heads if "scores" in layer)
        charts["head_scorers"] = ", ".join(dict.fromkeys(scored))
    if widths:
        charts["widths"] = before_and_after(widths, "Width of every layer")
    if facts["sweep"]:
        metric = (facts["evaluation"] or {}).get("metric", "harm")
        charts["sweep"] = curve(facts["sweep"], metric)
    return charts
