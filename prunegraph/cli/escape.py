"""Text from files on a terminal: what would steer it, break a line or turn its direction is shown as an escape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def escaped(text: str) -> str:
    r"""The text with every character that cannot be seen as an escape.

    >>> print(escaped("fc\x1b[31m\n\u202ecba"))
    fc\x1b[31m\n\u202ecba
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def escape_all(renderable: RenderableType) -> RenderableType:
    """The same with all text in it escaped: in texts, cells, groups and what they are padded by; changed in place."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if isinstance(renderable, str):
        return escaped(renderable)
    if isinstance(renderable, Text):
        return _escaped_text(renderable)
    if isinstance(renderable, Group):
        return Group(*map(escape_all, renderable.renderables))
    if isinstance(renderable, Padding):
        renderable.renderable = escape_all(renderable.renderable)
    elif isinstance(renderable, Table):
        renderable.title, renderable.caption = (
            "\n".join(map(escaped, each.split("\n"))) if isinstance(each, str) else each
            for each in (renderable.title, renderable.caption)
        )
        for column in renderable.columns:
            column.header = escape_all(column.header)
            column._cells = [escape_all(cell) for cell in column._cells]
    return renderable


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _escaped_text(text: Text) -> Text:
    """A text whose styles lie on the same characters as before."""
    from rich.text import Span

    if text.plain.isprintable():
        return text
    parts: Sequence[str] = [*map(_shown, text.plain)]
    starts = [0, *accumulate(map(len, parts))]
    copy = text.blank_copy("".join(parts))
    copy.spans = [Span(starts[span.start], starts[min(span.end, len(parts))], span.style) for span in text.spans]
    return copy
