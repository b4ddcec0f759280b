"""A report of one pruning: what was decided, what it saved, what the proof saw; as HTML, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prunegraph.export.report.facts import report_facts
from prunegraph.export.report.html import render_html
from prunegraph.export.report.markdown import render_markdown

__all__ = ["render", "render_html", "render_markdown", "report_facts"]


def render(facts: Mapping[str, Any], suffix: str) -> str:
    """What `report_facts` gathered, as the text of a `.html`, `.md` or `.json` file.

    Raises:
        MissingExtra: it is a page, and jinja2 is not installed.
    """
    if suffix == ".html":
        return render_html(facts)
    return render_markdown(facts) if suffix == ".md" else json.dumps(facts, indent=1)
