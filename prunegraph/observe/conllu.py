"""Read dependency trees from CoNLL-U files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunegraph.errors import UsageError
from prunegraph.observe.files import open_text

ROOT = -1


@dataclass(frozen=True, slots=True)
class Parse:
    """One tree over the words of a text.

    Attributes:
        spans: Where every word starts and ends in the text, in characters.
        heads: The position of every word's head, `ROOT` where it has none.
        labels: What every word is to its head.
    """

    spans: tuple[tuple[int, int], ...]
    heads: tuple[int, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that it is one.

        Raises:
            ValueError: the lengths differ, or a head is out of range.
        """
        if not len(self.spans) == len(self.heads) == len(self.labels):
            raise ValueError("spans, heads and labels must be of one length")
        if any(not ROOT <= head < len(self.heads) for head in self.heads):
            raise ValueError("a head is no word of the text")


def read_conllu(path: Path) -> Iterator[tuple[str, Parse]]:
    """The text and the tree of every sentence, the text put together from its words.

    The words of a multi-word token (`2-3 don't`) share its place in the text; empty nodes (`1.1`) are left out.

    Raises:
        UsageError: a line is no CoNLL-U.
    """
    rows: list[list[str]] = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if line.strip() and not line.startswith("#"):
                columns = line.split("\t")
                if len(columns) < 8:
                    raise UsageError(
                        f"{path.name}, line {number}: {len(columns)} columns", hint="CoNLL-U has ten, split by tabs"
                    )
                rows.append(columns)
            elif not line.strip() and rows:
                yield _sentence(rows, path, number)
                rows = []
    if rows:
        yield _sentence(rows, path, number)


def _sentence(rows: Sequence[Sequence[str]], path: Path, number: int) -> tuple[str, Parse]:
    try:
        return _assemble(rows)
    except ValueError as error:
        raise UsageError(
            f"{path.name}, sentence before line {number}: {error}", hint="check columns 1, 7 and 8"
        ) from error


def _assemble(rows: Sequence[Sequence[str]]) -> tuple[str, Parse]:
    text = ""
    space = False
    until = 0
    shared = (0, 0)
    spans, heads, labels = [], [], []
    for row in rows:
        if "." in row[0]:
            continue
        first, _, last = row[0].partition("-")
        inside = not last and int(first) <= until
        if not inside:
            text += " " if space else ""
            shared = (len(text), len(text) + len(row[1]))
            text += row[1]
            space = len(row) < 10 or "SpaceAfter=No" not in row[9]
        if last:
            until = int(last)
            continue
        spans.append(shared)
        heads.append(int(row[6]) - 1)
        labels.append(row[7])
    return text, Parse(tuple(spans), tuple(heads), tuple(labels))
