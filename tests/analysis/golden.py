"""What the analysis finds in every small graph, as text.  `python -m tests.analysis.golden` writes that text anew."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from prunegraph.analysis.analyze import Analysis
from tests.graphs.small import GRAPHS, analysed

GOLDEN = Path(__file__).parent / "golden_groups.txt"


def compact(analysis: Analysis) -> str:
    """One line a group, `kind.number units per rows exactness: places`, then pinned weight axes by reason."""
    lines = []
    for group in analysis.groups:
        rows = f" per {'x'.join(map(str, group.rows))}" if group.rows else ""
        exact = "exact" if group.exact else "inexact"
        lines.append(f"{group.id} {group.units}{rows} {exact}: " + " ".join(map(str, group.places)))
    pinned: dict[str, Counter[str]] = {}
    for entry in analysis.pinned:
        pinned.setdefault(str(entry.pins[0]), Counter())[str(entry.place)] += 1
    lines += [f"pin {why}: " + " ".join(places) for why, places in pinned.items()]
    return "\n".join(lines)


def read() -> dict[str, str]:
    """The expected text of every graph."""
    sections = GOLDEN.read_text(encoding="utf-8").split("== ")[1:]
    return {name: body.strip() for name, _, body in (section.partition("\n") for section in sections)}


def main() -> None:
    """Write the file."""
    logging.basicConfig(level=logging.WARNING)
    text = "\n\n".join(f"== {name}\n{compact(analysed(name).analysis)}" for name in GRAPHS)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
