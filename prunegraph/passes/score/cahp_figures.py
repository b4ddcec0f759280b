"""CAHP in three figures: the silhouette and its knee, the map of heads, and heads by layer beside `michel`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prunegraph.extras import needs_extra
from prunegraph.passes.score.cahp_report import by_group
from prunegraph.passes.score.complement import Chosen

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#9a9a9a"


def figures(chosen: Chosen, folder: Path) -> tuple[Path, ...]:
    """Write `cahp-silhouette.png`, `cahp-map.png` and `cahp-layers.png`.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with needs_extra("report", "matplotlib"):
        from matplotlib.figure import Figure
    drawings: dict[str, Callable[[Chosen, Any], None]] = {"map": head_map, "layers": layers}
    if chosen.curve is not None:
        drawings = {"silhouette": silhouette, **drawings}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in drawings.items():
        figure = Figure(figsize=(7.2, 4.5), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(chosen, axes)
        path = folder / f"cahp-{name}.png"
        figure.savefig(path, format="png")
        written.append(path)
    return tuple(written)


def silhouette(chosen: Chosen, axes: Any) -> None:
    """The Mean Simplified Silhouette by number of clusters, the polynomial through it, and its knee."""
    assert chosen.curve is not None
    curve = chosen.curve
    axes.plot(curve.k, curve.silhouette, ".", color=GREY, markersize=4, label="measured")
    axes.plot(curve.k, curve.fit, color=BLUE, label="polynomial")
    axes.axvline(curve.knee, color=ORANGE, linewidth=1)
    height = curve.fit[curve.k == curve.knee][0]
    label = "knee" if curve.found else "no knee; highest over the diagonal"
    axes.plot([curve.knee], [height], "o", color=ORANGE, label=f"{label}: {curve.knee} clusters")
    axes.set(xlabel="clusters of heads", ylabel="Mean Simplified Silhouette", title="How many heads differ")
    axes.legend(frameon=False, loc="lower right")


def head_map(chosen: Chosen, axes: Any) -> None:
    """Heads where the reduction puts them, coloured by cluster, those that stay ringed and named layer.head."""
    import matplotlib

    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(chosen.clusters.medoids)))
    order = np.random.default_rng(0).permutation(len(colours))  # neighbours get unlike colours
    shade = colours[order][chosen.clusters.labels]
    x, y = chosen.points.T
    gone = ~chosen.keep
    axes.scatter(x[gone], y[gone], s=22, color=shade[gone], alpha=0.55, linewidths=0)
    axes.scatter(x[chosen.keep], y[chosen.keep], s=60, color=shade[chosen.keep], edgecolors="black", linewidths=1.2)
    for head in np.flatnonzero(chosen.keep):
        name = f"{chosen.owner[head]}.{head - int((chosen.owner < chosen.owner[head]).sum())}"
        axes.annotate(name, (x[head], y[head]), textcoords="offset points", xytext=(5, 4), fontsize=6.5)
    axes.set(xticks=[], yticks=[], title=f"{int(chosen.keep.sum())} of {len(x)} heads stay (ringed, layer.head)")
    axes.set_xlabel(f"coloured by cluster, {len(colours)} of them")


def layers(chosen: Chosen, axes: Any) -> None:
    """Heads kept by layer, beside what `michel` would keep at the same number."""
    ours, rival = by_group(chosen, "keep"), by_group(chosen, "rival")
    at = np.arange(len(ours))
    axes.bar(at - 0.2, list(ours.values()), 0.38, color=BLUE, label="cahp")
    axes.bar(at + 0.2, list(rival.values()), 0.38, color=ORANGE, label="michel, as many heads")
    axes.set(xlabel="layer", ylabel="heads kept", title="Heads kept by layer", xticks=at)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
