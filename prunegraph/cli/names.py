"""Lists of names on narrow screens: lines break between names and modules, never inside of one."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[^ .(/,]+[.(/,]*[ ]?|[ .(/,]+")


def pieces(text: str) -> list[str]:
    """What may stand on a line of its own: names up to the next space, dot, slash, comma or parenthesis."""
    return _PIECE.findall(text)


def longest_piece(text: str) -> int:
    """Columns that the longest piece takes."""
    return max((len(piece.rstrip()) for piece in pieces(text)), default=0)


def break_lines(text: str, width: int) -> list[str]:
    """The lines of a list of names; only what is longer than a line is broken anywhere.

    >>> break_lines("encoder.layer.(query, key), output", 16)
    ['encoder.layer.(', 'query, key),', 'output']
    """
    broken = [""]
    for piece in pieces(text):
        if len(broken[-1]) + len(piece.rstrip()) > width and broken[-1]:
            broken[-1] = broken[-1].rstrip()
            broken.append("")
        broken[-1] += piece
        while len(broken[-1].rstrip()) > width:
            broken[-1:] = [broken[-1][:width], broken[-1][width:]]
    return [line.rstrip() for line in broken]
