"""Attention-score preservation: how much the attention of a slim model looks like the original's, head by head.

SNP (arXiv 2404.11630) is named for preserving attention scores; this measures it for any pruning. Compared are rows of
the maps: what a query of the original gives to every key, and what the same query gives in the slim model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.selection import Selection
from prunegraph.arrays import Array, Floats
from prunegraph.errors import UsageError
from prunegraph.extras import needs_extra
from prunegraph.observe.attention_sites import Attention, attentions
from prunegraph.observe.metric import cosines
from prunegraph.observe.padding import real
from prunegraph.observe.stream import Inputs
from prunegraph.observe.text import Batch
from prunegraph.observe.with_outputs import with_outputs
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened, widened_feeds


@dataclass(frozen=True, slots=True)
class Preservation:
    """Mean cosine between attention maps.

    Attributes:
        labels: The node of every layer that attends.
        heads: By layer, which heads of the original are kept.
        cosines: By layer, the mean over samples and queries for each of these heads.
    """

    labels: tuple[str, ...]
    heads: tuple[npt.NDArray[np.int64], ...]
    cosines: tuple[Floats, ...]

    @property
    def layers(self) -> list[float]:
        """The mean over the kept heads of every layer."""
        return [float(np.mean(each)) for each in self.cosines]

    @property
    def mean(self) -> float:
        """The mean over all kept heads."""
        return float(np.mean(np.concatenate(self.cosines)))

    def grid(self) -> Floats:
        """`[layers, heads]` of the original, NaN where a head is gone."""
        cells = np.full((len(self.labels), max(int(heads.max()) for heads in self.heads) + 1), np.nan)
        for layer, (heads, means) in enumerate(zip(self.heads, self.cosines, strict=True)):
            cells[layer, heads] = means
        return cells

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        layers = zip(self.labels, self.heads, self.cosines, strict=True)
        return {
            "mean": self.mean,
            "layers": [{"where": w, "heads": h.tolist(), "cosines": c.tolist()} for w, h, c in layers],
        }


def attention_similarity(
    original: tuple[ir.Model, Analysis],
    slim: ir.Model,
    selection: Selection,
    inputs: Inputs,
) -> Preservation:
    """Run both models on the same data and compare what their heads attend to.

    Args:
        original: A normalized model and its analysis.
        slim: What was made of it.
        selection: What stays of the original: which of its heads the slim ones are.
        inputs: What to run them on; padding does not count.

    Raises:
        UsageError: there is no attention to compare, or the selection is of another model.
    """
    pairs = _pairs(attentions(*original), slim, selection)
    sums = [np.zeros(len(pair.heads)) for pair in pairs]
    counts = np.zeros(len(pairs))
    wholes, smalls = [pair.whole for pair in pairs], [pair.small for pair in pairs]
    with _watched(original[0], wholes) as of_original, _watched(slim, smalls) as of_slim:
        for batch in inputs.batches():
            before, after = of_original(batch), of_slim(batch)
            for k, pair in enumerate(pairs):
                a, b = pair.whole.maps(before)[:, pair.heads], pair.small.maps(after)
                if a.shape != b.shape:
                    hint = "give the plan that was written beside the slim model"
                    raise UsageError(f"{pair.whole.label}: {a.shape} is compared with {b.shape}", hint=hint)
                each = np.moveaxis(cosines(a, b), 1, -1)
                rows = each[real(each.shape[:-1], batch)]
                sums[k] += rows.sum(axis=0)
                counts[k] += len(rows)
    means = tuple(total / count for total, count in zip(sums, counts, strict=True))
    return Preservation(tuple(pair.whole.label for pair in pairs), tuple(pair.heads for pair in pairs), means)


@dataclass(frozen=True, slots=True)
class _Pair:
    whole: Attention
    small: Attention
    heads: npt.NDArray[np.int64]


def _pairs(wholes: Sequence[Attention], slim: ir.Model, selection: Selection) -> list[_Pair]:
    """Where both attend: values and nodes keep their names, and what they hold its layout."""
    values = {value.name for node in slim.graph for value in node.outputs}
    positions = {node.name: k for k, node in enumerate(slim.graph)}
    pairs = []
    for whole in wholes:
        kept = np.ones(whole.heads, dtype=bool)
        for name, units in whole.units.items():
            if name in selection.keep:
                kept &= selection.keep[name].reshape(-1)[units] | (units < 0)
        maps = whole.probabilities
        if maps is None or (maps.value not in values if maps.node is None else whole.label not in positions):
            continue
        maps = maps if maps.node is None else replace(maps, node=positions[whole.label])
        count = int(kept.sum())
        small = replace(whole, probabilities=maps, heads=count, axes=replace(whole.axes, count=count))
        pairs.append(_Pair(whole, small, np.flatnonzero(kept)))
    if not pairs:
        raise UsageError("there is no attention to compare", hint="give a Transformer whose maps ONNX Runtime shows")
    return pairs


@contextmanager
def _watched(model: ir.Model, sites: Sequence[Attention]) -> Iterator[Callable[[Batch], dict[str, Array]]]:
    """What runs a batch and gives the attention probabilities."""
    observed = [site.probabilities for site in sites if site.probabilities is not None]
    names = [value.value for value in observed]
    with open_session(with_outputs(widened(model), observed)) as session:
        yield lambda batch: dict(zip(names, run(session, widened_feeds(batch.feeds), names), strict=True))


def heat_map(preservation: Preservation, path: Path) -> None:
    """Draw one cell a head, layers downwards; heads that are gone are grey.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with needs_extra("report", "matplotlib"):
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    grid = preservation.grid()
    figure = Figure(figsize=(1.8 + 0.42 * grid.shape[1], 1.3 + 0.42 * grid.shape[0]), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(grid, vmin=0, vmax=1, cmap=colormaps["viridis"].with_extremes(bad="0.85"), aspect="auto")
    for (layer, head), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if value < 0.6 else "black"
            axes.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(grid.shape[1]))
    axes.set_yticks(range(grid.shape[0]))
    axes.set_xlabel("head of the original")
    axes.set_ylabel("layer")
    axes.set_title(f"cosine of attention maps, mean {preservation.mean:.3f}", fontsize=10)
    figure.colorbar(image, ax=axes, label="cosine, original and slim")
    figure.savefig(path, dpi=150)
