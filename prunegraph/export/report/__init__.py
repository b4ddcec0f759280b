"""A report of one pruning: what was decided, what it saved, what the proof saw; as HTML, Markdown and JSON."""

from prunegraph.export.report.facts import report_facts
from prunegraph.export.report.html import render_html
from prunegraph.export.report.markdown import render_markdown

__all__ = ["render_html", "render_markdown", "report_facts"]
