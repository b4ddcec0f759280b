"""Charts of a report as pictures, for places that show no SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def draw_heads(facts: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write `heads.png`, a row a layer and a square a head; nothing where the model has no heads.

    Args:
        facts: What `report_facts` gathered.
        folder: Where to write it.
    """
    layers = [layer for layer in facts["layers"] if "kept" in layer]
    if not layers:
        return ()
    from matplotlib.figure import Figure

    heads = max(len(layer["kept"]) for layer in layers)
    cells = np.full((len(layers), heads), np.nan)
    for row, layer in enumerate(layers):
        cells[row, : len(layer["kept"])] = layer["kept"]
    figure = Figure(figsize=(2 + heads * 0.3, 1 + len(layers) * 0.3), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(cells[::-1], cmap="Blues", vmin=-0.2, vmax=1.2, edgecolors="white", linewidth=2)
    axes.set_yticks(np.arange(len(layers)) + 0.5, [layer["id"] for layer in reversed(layers)])
    axes.set_xticks(np.arange(heads) + 0.5, [str(head) for head in range(heads)])
    axes.set(aspect="equal", xlabel="head", title="dark stays, pale went")
    figure.savefig(folder / "heads.png", dpi=150)
    return (folder / "heads.png",)


def draw_where(facts: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write `where.png`, parameters, multiply-adds and milliseconds of every block, before and after.

    Args:
        facts: What `PruneResult.facts` returned.
        folder: Where to write it.
    """
    rows = facts.get("where", ())
    amounts = {"parameters": [(row["before"], row["after"]) for row in rows]}
    for name, key in (("multiply-adds", "macs"), ("milliseconds", "ms")):
        if rows and key in rows[0]:
            amounts[name] = [tuple(row[key]) for row in rows]
    if not rows:
        return ()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 3 * len(amounts), 1 + 0.3 * len(rows)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(amounts), sharey=True))
    places = np.arange(len(rows))[::-1]
    for axes, (name, both) in zip(panels, amounts.items(), strict=True):
        axes.barh(places, [before for before, _ in both], color="lightsteelblue", label="before")
        axes.barh(places, [after for _, after in both], height=0.5, color="tab:blue", label="after")
        axes.set(title=name, yticks=places, yticklabels=[row["block"] for row in rows])
    panels[-1].legend()
    figure.savefig(folder / "where.png", dpi=150)
    return (folder / "where.png",)
