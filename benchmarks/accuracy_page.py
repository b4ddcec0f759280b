"""The page of `benchmarks.accuracy`: tables with intervals, and one plot a task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Section, write_page


@dataclass(frozen=True, order=True)
class Case:
    """One number of the table."""

    task: str
    widths: str
    fewer: float
    scorer: str
    recovery: str
    draw: int = 0

    def __str__(self) -> str:
        parts = (self.task, self.widths.replace(" ", "-"), self.fewer, self.scorer, self.recovery, self.draw)
        return "_".join(map(str, parts))


Results = Mapping[Case, dict[str, Any]]

HEAD = """# Accuracy after pruning

Written by `python -m benchmarks.accuracy --markdown docs/accuracy.md` (AMD EPYC, 2 cores, ONNX Runtime on the CPU).

Measured before `magnitude` came to multiply what makes a unit with what reads it, and before Q/K and V dims were turned
by default ([Rotate](rotate.md)): rows that name magnitude, and Q/K dims in all rows, stand for what these did then.

All scorers remove the same numbers of units of the same kinds, so that only their choice differs: *inner* means Q/K and
V dims and FFN neurons, *inner and hidden* the residual width as well, as SNP does it. `activation` cannot score Q/K
dims; magnitude does it there. Scores and repair look at 512 training examples; *repair* is `repair="auto"`, which needs
no labels and no gradients; *fine-tuned* is repair and then one short epoch (3,000 images at 3e-4, or 2,000 sentences at
5e-5) with the whole model as teacher. Every pruned model was proven equal to the masked original before its repair.

In short: on the ViT, a repaired model hardly needs training as long as the stream keeps its width: 65 % fewer MACs
cost about a point with any scorer but `random` and `snp`. On the MiniLM repair helps less, for Q/K dims are out of
its reach. The claim of SNP's paper does not show here: its accuracies come after 300 epochs of training, and without
any its choice is worse than a random one on the ViT, and no better than `activation` and `taylor` on the MiniLM.

± is half of a 95 % interval of the difference to the whole model on the same test examples (paired bootstrap); for
`random` without training of the mean over three draws. One trained model a task and one seed: it does not tell what
another training run would give.
"""


NAMED = {"none": "no training", "repair": "repaired", "finetune": "fine-tuned"}


def bits(result: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Per test example 1.0 where the model is right."""
    return np.unpackbits(np.array(result["right"], np.uint8), count=result["count"]).astype(np.float64)


def render(results: Results, target: Path) -> None:
    """Write the page, and beside it a plot a task."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEAD]
    for name in dict.fromkeys(case.task for case in results):
        of_task = {case: result for case, result in results.items() if case.task == name}
        whole = next(bits(result) for case, result in of_task.items() if case.scorer == "whole")
        lines += [f"## {name}", "", f"The whole model: {whole.mean():.1%} of {len(whole):,} test examples.", ""]
        for widths in dict.fromkeys(case.widths for case in of_task if case.scorer != "whole"):
            lines += _table({c: r for c, r in of_task.items() if c.widths == widths}, whole, widths)
        picture = target.parent / f"accuracy-{name}.png"
        _plot(of_task, whole, picture)
        lines += [f"![Accuracy over MACs, {name}]({picture.name})", ""]
    write_page(target, lines)


def _table(results: Results, whole: npt.NDArray[np.float64], widths: str) -> list[str]:
    fewer = sorted({case.fewer for case in results})
    cells: dict[tuple[str, str], dict[float, str]] = defaultdict(dict)
    for case in results:
        draws = [bits(r) for c, r in results.items() if (*_key(c), c.fewer) == (*_key(case), case.fewer)]
        mean = np.mean(draws, axis=0)
        cells[_key(case)][case.fewer] = f"{mean.mean():.1%} ± {_half_interval(mean - whole):.1%}"
    head = ["", f"{widths}", *(f"{part:.0%} fewer MACs" for part in fewer)]
    rows = [
        [scorer, NAMED[recovery], *(row.get(part, "") for part in fewer)] for (recovery, scorer), row in cells.items()
    ]
    return [*Section("", head, rows, texts=2).table(), ""]


def _key(case: Case) -> tuple[str, str]:
    return case.recovery, case.scorer


def _half_interval(difference: npt.NDArray[np.float64]) -> float:
    rng = np.random.default_rng(0)
    means = [rng.choice(difference, len(difference)).mean() for _ in range(1000)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(high - low) / 2


def _plot(results: Results, whole: npt.NDArray[np.float64], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys((c.widths, c.recovery) for c in results if c.scorer != "whole"))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3 * len(panels), 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    colours = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(c.scorer for c in results if c.scorer != "whole"))}
    for axis, (widths, recovery) in zip(axes[0], panels, strict=True):
        inside = {c: r for c, r in results.items() if (c.widths, c.recovery) == (widths, recovery)}
        for scorer in dict.fromkeys(case.scorer for case in inside):
            fewer = sorted({c.fewer for c in inside if c.scorer == scorer})
            ys = [
                np.mean([bits(r).mean() for c, r in inside.items() if (c.scorer, c.fewer) == (scorer, f)])
                for f in fewer
            ]
            xs = [0, *(100 * f for f in fewer)]
            axis.plot(xs, [100 * whole.mean(), *(100 * y for y in ys)], "o-", label=scorer, color=colours[scorer])
        axis.set_title(f"{widths}\n{NAMED[recovery]}", fontsize=9)
        axis.set_xlabel("% fewer MACs")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy, %")
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
