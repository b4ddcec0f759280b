"""What SAP found, in words, as tables, as JSON and as a figure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.extras import needs_extra
from prunegraph.observe.attention_sites import Attention
from prunegraph.passes.score.base import ReportTable, ScoringReport
from prunegraph.passes.score.dependencies import LabelRank


@dataclass(frozen=True, slots=True)
class SapResult:
    """Everything that SAP found.

    Attributes:
        labels: The ranked labels with their weights.
        penalties: By site, the penalty count of every head; the largest go first.
        tau: By site, the threshold of every head.
        sites: The places, in the order of the graph.
        causal: Whether later tokens are hidden from earlier ones.
    """

    labels: tuple[LabelRank, ...]
    penalties: tuple[npt.NDArray[np.float64], ...]
    tau: tuple[npt.NDArray[np.float64], ...]
    sites: tuple[Attention, ...]
    causal: bool


def report_of(judged: SapResult) -> ScoringReport:
    """Lines, tables, facts and the head map."""

    def draw(folder: Path) -> tuple[Path, ...]:
        return (_head_map(judged, folder),)

    return ScoringReport(_lines(judged), facts_of(judged), draw, (_labels(judged), _heads(judged)))


def facts_of(judged: SapResult) -> dict[str, Any]:
    """All facts of the report as JSON writes them."""
    return {
        "causal": judged.causal,
        "labels": [
            {"label": r.label, "count": r.count, "rank": r.rank, "top": r.top, "weight": r.weight}
            for r in judged.labels
        ],
        "layers": [
            {"label": site.label, "penalties": penalty.tolist(), "threshold": tau.tolist()}
            for site, penalty, tau in zip(judged.sites, judged.penalties, judged.tau, strict=True)
        ],
    }


def _lines(judged: SapResult) -> tuple[str, ...]:
    total = sum(rank.count for rank in judged.labels)
    frequent = ", ".join(f"{rank.label} {rank.count / total:.0%}" for rank in judged.labels if rank.top)
    return (f"sap: {total:,} pairs of words, most often {frequent}",)


def _labels(judged: SapResult) -> ReportTable:
    """The ranked labels; the frequent ones stand out."""
    total = sum(rank.count for rank in judged.labels)
    rows = [
        (r.label, f"{r.rank}", f"{r.count:,}", f"{r.count / total:.1%}", f"{r.weight}", "top" if r.top else "rest")
        for r in judged.labels
    ]
    headings = ("label", "rank", "pairs", "share", "weight", "")
    return ReportTable("Relations by frequency", headings, tuple(rows), tuple(rank.top for rank in judged.labels))


def _heads(judged: SapResult) -> ReportTable:
    """Penalty counts, a layer a row; the darker a head, the sooner it goes."""
    worst = max(max(float(penalty.max()) for penalty in judged.penalties), 1.0)
    heads = max(site.heads for site in judged.sites)
    layers = list(zip(judged.sites, judged.penalties, strict=True))
    return ReportTable(
        "Penalty of every head: the largest go first",
        ("layer", *map(str, range(heads))),
        tuple((str(site.layer), *(f"{value:,.0f}" for value in penalty)) for site, penalty in layers),
        heat=tuple(tuple(float(value) / worst for value in penalty) for _, penalty in layers),
    )


def _head_map(judged: SapResult, folder: Path) -> Path:
    """Write `sap-heads.png`, the penalties by layer and head.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with needs_extra("report", "matplotlib"):
        from matplotlib.figure import Figure
    penalties = np.full((len(judged.sites), max(site.heads for site in judged.sites)), np.nan)
    for row, penalty in zip(penalties, judged.penalties, strict=True):
        row[: len(penalty)] = penalty
    figure = Figure(figsize=(7.2, 4.5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(penalties, cmap="viridis", aspect="auto"), ax=axes, label="penalty")
    axes.set(xlabel="head", ylabel="layer", title="Penalty of every head: the largest go first")
    axes.set_yticks(range(len(judged.sites)), [str(site.layer) for site in judged.sites])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sap-heads.png"
    part = folder / f"{path.name}.part"
    figure.savefig(part, format="png")
    os.replace(part, path)
    return path
