"""A table without lines, as commands print their results."""

from __future__ import annotations

from rich.table import Table


def plain_table(*headings: str, labels: int = 1, title: str | None = None) -> Table:
    """A table without lines: labels on the left, numbers right-aligned beside them.

    Args:
        headings: Of the columns.
        labels: How many of the first columns hold labels.
        title: What stands above it.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="left" if k < labels else "right")
    return table
