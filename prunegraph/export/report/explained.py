"""What an analysis found as a drawing: a page of its own, or a graph for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from prunegraph.errors import MissingExtra
from prunegraph.export.report.svg import incidence


def draw_html(name: str, facts: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> str:
    """A page that needs no network: a table and a drawing for every block, which group shortens which modules.

    Args:
        name: Of the model.
        facts: What `analysis.explain.to_dict` gives.
        blocks: `title`, `alike` (how many blocks it stands for) and `groups`: `id`, `units`, `exact`, `params`,
            `modules`, and
            `held`, their names in short.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise MissingExtra("report", "jinja2") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn = [{**block, "drawing": _drawing(block["groups"])} for block in blocks]
    folder = files("prunegraph.export.report")
    style = (folder / "style.css").read_text(encoding="utf-8")
    source = (folder / "explained.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(name=name, facts=facts, blocks=drawn, style=style)


def _drawing(groups: Sequence[Mapping[str, Any]]) -> str:
    modules = list(dict.fromkeys(module for group in groups for module in group["modules"]))
    return incidence(modules, [(group["id"], group["modules"], group["exact"]) for group in groups])


def draw_dot(name: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    """The same as a graph: groups are boxes, dashed where inexact, and lead to the modules that they shorten."""
    return "\n".join(_dot_lines(name, blocks)) + "\n"


def _dot_lines(name: str, blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"digraph {_quoted(name)} {{"
    yield "  rankdir=LR; node [fontname=Helvetica];"
    for number, block in enumerate(blocks):
        alike = f", {block['alike']} blocks alike" if block["alike"] > 1 else ""
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(block['title'] + alike)};"
        boxes = {group["id"]: _quoted(f"{number}:{group['id']}") for group in block["groups"]}
        for group in block["groups"]:
            look = "box" if group["exact"] else "box, style=dashed"
            label = _quoted(f"{group['id']}\n{group['units']}")
            yield f"    {boxes[group['id']]} [shape={look}, label={label}];"
        names = dict.fromkeys(module for group in block["groups"] for module in group["modules"])
        ellipses = {module: _quoted(f"{number}:module {module}") for module in names}
        yield from (f"    {each} [shape=ellipse, label={_quoted(module)}];" for module, each in ellipses.items())
        for group in block["groups"]:
            yield from (f"    {boxes[group['id']]} -> {ellipses[module]};" for module in group["modules"])
        yield "  }"
    yield "}"


def _quoted(text: str) -> str:
    """Text as a quoted id of the DOT language."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{safe}"'
