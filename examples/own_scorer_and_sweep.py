"""Write a scorer of your own, and compare it with others over a sweep of ratios.

    python examples/own_scorer_and_sweep.py

A scorer gives every unit a number, high for what should stay.  The model is analysed once, every scorer looks at the
data once, and only what follows is done again for every ratio.  Needs `prunegraph[torch]`, which makes the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import prunegraph as pg
from prunegraph.analysis.slots import unit_sums
from prunegraph.observe.moments import Moments
from prunegraph.passes.score.activation import uses

WIDTH, HIDDEN, CLASSES = 16, 96, 4


# --8<-- [start:scorer]
@dataclass(frozen=True)
class Spread(pg.Scorer):
    """Units whose activation varies most stay: a constant one can be folded into the bias behind it.

    The fields are its options: `Spread(power=1)` here, `--scorer-option power=1` on the command line.
    """

    name: ClassVar[str] = "spread"
    kinds: ClassVar[tuple[str, ...]] = ("ffn", "dense")  # others go by magnitude
    data_kinds: ClassVar[tuple[str, ...]] = kinds  # for these it has to run the model

    power: float = 0.5

    def observes(self, groups: Sequence[pg.Group], context: pg.Context, inputs: Any) -> Mapping[str, Any]:
        """Sums and squares of the values that the next weight reads, gathered in one pass over the data."""
        graph, solution = context.model.graph, context.analysis.solution
        return {"moments": Moments([(use.value, use.axis) for group in groups for use in uses(graph, solution, group)])}

    def score(self, group: pg.Group, context: pg.Context) -> np.ndarray:
        """One number a unit: the variance, to a power."""
        moments, solution = context.observations["moments"], context.analysis.solution
        total = np.zeros(group.shape)
        for use in uses(context.model.graph, solution, group):
            mean, squares = (sums[use.value] / moments.count[use.value] for sums in (moments.sums, moments.squares))
            variance = np.maximum(squares - mean**2, 0)
            axis = solution.resolve(use.value)[use.axis]
            total += unit_sums(lambda kept, v=variance: v, (axis,), group.dim, (), solution.dim_size)
        return total**self.power


# --8<-- [end:scorer]


def make_points(number: int, seed: int) -> dict[str, np.ndarray]:
    """Points around the centres of four classes."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    labels = draw.integers(CLASSES, size=number)
    return {"x": (centres[labels] + draw.normal(size=(number, WIDTH))).astype(np.float32), "labels": labels}


def train(data: Mapping[str, np.ndarray], steps: int = 150) -> nn.Module:
    """A classifier with three layers."""
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)]
    module = nn.Sequential(*layers)
    x, labels = torch.from_numpy(data["x"]), torch.from_numpy(data["labels"])
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), labels).backward()
        optimizer.step()
    return module.eval()


# --8<-- [start:sweep]
def sweep(
    graph: pg.Graph, scorers: Mapping[str, Any], data: Mapping[str, np.ndarray], held_out: Mapping[str, np.ndarray]
) -> dict[tuple[str, float], pg.PruneResult]:
    """A slim model by scorer and ratio; prints one line for each."""
    results = {}
    print(f"{'scorer':10} {'ratio':>5} {'parameters':>10} {'accuracy':>8} {'repaired':>8}")
    for name, scorer in scorers.items():
        scores = graph.score(scorer, data)  # the data are read once a scorer, not once a ratio
        for ratio in (0.25, 0.5, 0.75, 0.9):
            result = graph.apply(graph.select(scores, ratio))
            repaired = result.repair(data)  # no labels, no gradients: least squares
            plain, better = (each.evaluate(held_out).scores[1].value for each in (result, repaired))
            print(f"{name:10} {ratio:5.2f} {result.report.params[1]:10,} {plain:8.3f} {better:8.3f}")
            results[name, ratio] = repaired
    return results


# --8<-- [end:sweep]


def main() -> dict[tuple[str, float], pg.PruneResult]:
    """Train, analyse once, sweep."""
    data, held_out = make_points(512, seed=1), make_points(512, seed=2)
    model = pg.from_torch(train(data), {"input": torch.from_numpy(data["x"][:2])})
    model.graph.inputs[0].name = "x"
    graph = pg.analyze(model)
    print(graph.explain())
    calibration = {"x": data["x"]}  # no labels needed
    return sweep(graph, {"random": "random", "magnitude": "magnitude", "spread": Spread()}, calibration, held_out)


if __name__ == "__main__":
    main()
