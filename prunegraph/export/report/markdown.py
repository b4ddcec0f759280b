"""The report as Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prunegraph.export.report.facts import speed_rows
from prunegraph.export.report.html import count, share


def render_markdown(facts: Mapping[str, Any]) -> str:
    """The text for what `report_facts` gathered."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    chosen = f", units chosen by {facts['scorer']}" if facts["scorer"] else ""
    yield from (f"# {_cell(facts['name'])}", "", f"Made smaller by prunegraph {facts['version']}{chosen}.", "")
    amounts = {"parameters": facts["params"], "multiply-adds": facts["macs"], **facts["sizes"]}
    rows = [[name, count(before), count(after), share(before, after)] for name, (before, after) in amounts.items()]
    yield from _table(["", "before", "after", "change"], rows)
    if facts["macs_at"]:
        sizes = ", ".join(f"{name} = {size}" for name, size in facts["macs_at"].items())
        yield from ("", f"Multiply-adds are those of one run at {_cell(sizes)}.")
    if facts["latency"]:
        yield from ("", "## Latency", "")
        rows = [_arm(arm) for arm in facts["latency"]["results"]]
        yield from _table(["model", "provider", "median ms", "times faster"], rows)
    if speed := facts.get("speed"):
        yield from ("", "## Speed", "")
        yield from _table([f"on {speed['ep']}", "times faster", "95 %"], speed_rows(speed))
        for model, times in speed["profile"].items():
            yield from ("", f"Where the {model} model spends its time, by op type:", "")
            yield from _table(["op type", "ms of one run"], [[op, f"{ms:.3f}"] for op, ms in list(times.items())[:8]])
    if facts["evaluation"]:
        yield from ("", _evaluation_heading(facts["evaluation"]), "")
        rows = [
            [row["model"], f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]", _change(row["change"])]
            for row in facts["evaluation"]["models"]
        ]
        yield from _table(["model", facts["evaluation"]["metric"], "change"], rows)
    if facts["sweep"]:
        yield from ("", "## Accuracy over latency", "")
        rows = [
            [each["name"], *map("{:.4f}".format, (each["latency_ms"], each["metric"], each["low"], each["high"]))]
            for each in facts["sweep"]
        ]
        yield from _table(["model", "ms", "metric", "from", "to"], rows)
    yield from ("", "## What went", "")
    yield from _table(["kind", "before", "after"], [[k["kind"], k["before"], k["after"]] for k in facts["kinds"]])
    heads = [layer for layer in facts["layers"] if "kept" in layer]
    if heads:
        yield from ("", "Heads, a row a layer: `#` stays, `.` went.", "", "```")
        yield from (f"{layer['id']:>12} {''.join('#' if stays else '.' for stays in layer['kept'])}" for layer in heads)
        yield "```"
    if facts.get("where"):
        yield from ("", "## Where it lies", "")
        columns: dict[str, tuple[str, Callable[[float], str]]] = {
            name: (key, write)
            for name, key, write in (("multiply-adds", "macs", count), ("ms", "ms", "{:.3f}".format))
            if any(key in row for row in facts["where"])
        }
        headings = ["parameters", *columns]
        rows = [
            [row["block"], *_both(row["before"], row["after"], count)]
            + [cell for key, write in columns.values() for cell in _both(row[key][0], row[key][1], write)]
            for row in facts["where"]
        ]
        yield from _table(["block", *(each for name in headings for each in (name, "after", "change"))], rows)
    yield from ("", "## What the proof saw", "")
    yield from _table(["", ""], facts["proof_rows"]) if facts["proof"] else ("No proof was asked for.",)
    if facts["pins"]:
        yield from ("", "## What cannot go, and why", "")
        rows = [[pin["why"], pin["axes"], f"`{pin['where']}`"] for pin in facts["pins"]]
        yield from _table(["reason", "axes", "for example"], rows)
    if facts["commands"]:
        yield from ("", "## To do it again", "", "```console", *(f"$ {line}" for line in facts["commands"]), "```")


def _evaluation_heading(evaluation: Mapping[str, Any]) -> str:
    on = f" {evaluation['on']}" if "on" in evaluation else ""
    return f"## {evaluation['metric']}, {evaluation['examples']} examples{on}"


def _arm(arm: Mapping[str, Any]) -> list[Any]:
    ratio = arm.get("ratio")
    faster = f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else ""
    return [arm["model"], arm["provider"], f"{arm['median_ms']:.3f}", faster]


def _both(before: float, after: float, write: Callable[[float], str]) -> tuple[str, str, str]:
    return write(before), write(after), share(before, after)


def _change(change: float | None) -> str:
    return "" if change is None else f"{change:+.4f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|---" + "|---:" * (len(headings) - 1) + "|"
    yield from ("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)


def _cell(value: Any) -> str:
    """A value that cannot end its cell or its line."""
    return " ".join(str(value).replace("|", "\\|").split())
