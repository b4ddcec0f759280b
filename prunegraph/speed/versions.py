"""One model at several speeds: analysed, observed and timed once, with a figure of how good each version is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunegraph.atomic_write import check_new_folder, new_folder
from prunegraph.clock import Clock, Progress
from prunegraph.errors import UsageError
from prunegraph.export.convert import ModelLike
from prunegraph.export.report import render
from prunegraph.extras import require_extras
from prunegraph.graph import Graph, analyze_source
from prunegraph.observe.data import DataLike
from prunegraph.observe.evaluation import Evaluation, check_metric, evaluate_models
from prunegraph.observe.stream import Data
from prunegraph.passes.choose.request import Amount, Scope
from prunegraph.passes.score import KindScorers, Scorers
from prunegraph.prepare import rotated_and_scored
from prunegraph.report import SpeedReport
from prunegraph.request import Repair, Request
from prunegraph.result import PruneResult
from prunegraph.speed.candidates import candidates
from prunegraph.speed.search import SpeedSearch
from prunegraph.speed.select import meet

LOWER_IS_BETTER = ("perplexity", "harm")


@dataclass(frozen=True)
class Sweep:
    """One model at several speeds.

    Attributes:
        results: By the speed-up that was asked for.
        refused: By the speed-ups that cannot be had, why not.
        evaluation: The original and all versions on the same examples; None where there are none.
    """

    results: Mapping[float, PruneResult]
    refused: Mapping[float, str]
    evaluation: Evaluation | None = None

    def points(self) -> list[dict[str, Any]]:
        """What a plot and a report show of the original and of every version: name, latency, metric and interval."""
        versions: dict[str, tuple[float, PruneResult | None]] = {"original": (self._whole_ms(), None)}
        for speedup, version in self.results.items():
            versions[title(speedup)] = self._whole_ms() / _speed(version).met.best.ratio.median, version
        points = []
        for name, (latency, result) in versions.items():
            metric = self._metric(name, result)
            if metric is not None:
                points.append({"name": name, "latency_ms": latency, **metric})
        return points

    @property
    def metric(self) -> str:
        """What the points are judged by: that of the evaluation, else the harm that plans were made with."""
        return self.evaluation.metric if self.evaluation is not None else "harm"

    def front(self) -> list[str]:
        """The names of the points that no other beats in both latency and metric."""
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        best, names = -float("inf"), list[str]()
        for point in sorted(self.points(), key=lambda each: (each["latency_ms"], -sign * each["metric"])):
            if sign * point["metric"] > best:
                best = sign * point["metric"]
                names.append(point["name"])
        return names

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "metric": self.metric,
            "points": self.points(),
            "front": self.front(),
            "versions": {title(speedup): result.to_dict() for speedup, result in self.results.items()},
            "refused": {title(speedup): reason for speedup, reason in self.refused.items()},
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
        }

    def save(self, folder: str | os.PathLike[str], stem: str = "model", progress: Progress | None = None) -> Path:
        """Write the models with their plans, `sweep.json`, `sweep.png`, and `report.html` of the fastest version.

        Args:
            folder: A new folder; it appears whole or not at all.
            stem: What the files of the models begin with.
            progress: Told how much of a large model is written.

        Raises:
            OutputError: there is something already, or it cannot be written.
            MissingExtra: jinja2 or matplotlib is not installed.
        """
        require_extras(["report"])
        target = Path(folder)
        check_new_folder(target)
        with new_folder(target) as aside:
            for speedup, result in self.results.items():
                result.save(aside / f"{stem}-{title(speedup)}.onnx", progress=progress)
            text = json.dumps(self.to_dict(), indent=1, default=float)
            (aside / "sweep.json").write_text(text, encoding="utf-8")
            points = self.points()
            if len(points) > 1:
                draw_sweep(points, self.front(), self.metric, aside / "sweep.png")
            if self.results:
                evaluation = None if self.evaluation is None else self.evaluation.to_dict()
                facts = self.results[max(self.results)].facts(evaluation=evaluation, sweep=points)
                (aside / "report.html").write_text(render(facts, ".html"), encoding="utf-8")
        return target

    def _whole_ms(self) -> float:
        """The middle of what the original took beside all versions."""
        times = sorted(both[0] for result in self.results.values() if (both := _speed(result).latency_ms) is not None)
        return times[len(times) // 2] if times else float("nan")

    def _metric(self, name: str, result: PruneResult | None) -> dict[str, float] | None:
        if self.evaluation is not None:
            score = next(each for each in self.evaluation.scores if each.model == name)
            return {"metric": score.value, "low": score.low, "high": score.high}
        if result is None:
            return {"metric": 0.0, "low": 0.0, "high": 0.0}
        speed = _speed(result)
        harm = speed.harm.get(speed.plan)
        return None if harm is None else {"metric": harm, "low": harm, "high": harm}


def sweep(
    model: ModelLike,
    speedups: Sequence[float],
    amount: Amount | None = None,
    *,
    scorer: Scorers | KindScorers | None = None,
    data: DataLike | Data | None = None,
    evaluate: DataLike | Data | None = None,
    metric: str = "auto",
    scope: Scope | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Sweep:
    """One model at several speeds, measured; analysis, observation and the tables of time and harm are shared.

    >>> from prunegraph.speed import sweep
    >>> sweep("model.onnx", [1.5, 2, 3], data="texts.txt", evaluate="test.csv").save("folder")  # doctest: +SKIP

    Args:
        model: See `prune_graph`.
        speedups: How many times faster the versions shall be.
        amount: What it says beside amounts counts: kinds, `align`, `ep`, `timing`, budgets, `search`.
        scorer: See `prune_graph`.
        data: What plans are made by, and what versions are repaired on.
        evaluate: Other examples, with labels or without, that the original and all versions are compared on.
        metric: See `PruneResult.evaluate`.
        scope: See `prune_graph`.
        verify: Prove every version.
        progress: Called with the name of each step.

    Raises:
        UsageError: an argument is wrong, or none of the speeds can be had.
        VerificationFailed: a version does not compute what the masked original computes.
    """
    targets = sorted(dict.fromkeys(speedups))
    if not targets:
        raise UsageError("no speed is asked for", hint="give some: 1.5,2,3")
    check_metric(metric)
    amounts = [replace(amount or Amount(), speedup=speedup) for speedup in targets]
    request = Request.of(amounts[0], scorer, data, scope, None, verify)
    judged = Data.open(evaluate)
    graph = analyze_source(model, request.scope, Clock(progress), data=request.data)
    chosen = candidates(graph, amounts[0], dims=request.data is not None)
    graph, scores, _ = rotated_and_scored(graph, chosen, request)
    search = SpeedSearch(graph, scores, amounts[0], request.data, graph.clock)
    results: dict[float, PruneResult] = {}
    refused: dict[float, str] = {}
    search.try_forms(targets[len(targets) // 2])
    for speedup in targets:
        try:
            plan = meet(search, speedup)
        except UsageError as error:
            refused[speedup] = error.message
            continue
        result = plan.graph.apply(plan.selection, verify=verify, data=request.data, forms=plan.forms)
        result = replace(result, speed=plan.report, scores=plan.scores)
        results[speedup] = result if request.data is None else result.repair(request.data, Repair().method)
    if not results:
        raise UsageError(next(iter(refused.values())), hint="ask for less, or let more kinds be pruned")
    return Sweep(results, refused, None if judged is None else _evaluation(graph, results, judged, metric))


def title(speedup: float) -> str:
    """What a version is called.

    >>> title(2.0), title(1.25)
    ('2x', '1.25x')
    """
    return f"{speedup:g}x"


def draw_sweep(points: Sequence[Mapping[str, Any]], front: Sequence[str], metric: str, path: Path) -> None:
    """Draw the metric over the measured latency, with intervals and the line of what nothing beats.

    Args:
        points: See `Sweep.points`.
        front: The names of those on the line.
        metric: Its name.
        path: Where to write the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for point in points:
        x, y = point["latency_ms"], point["metric"]
        beyond = [[max(y - point["low"], 0)], [max(point["high"] - y, 0)]]
        axes.errorbar(x, y, beyond, fmt="o", capsize=3, color="C0" if point["name"] in front else "C7")
        axes.annotate(point["name"], (x, y), textcoords="offset points", xytext=(6, 6), fontsize="small")
    line = sorted((point["latency_ms"], point["metric"]) for point in points if point["name"] in front)
    axes.plot(*zip(*line, strict=True), color="C0", linewidth=1)
    axes.set(xlabel="milliseconds of one run, measured", ylabel=metric, xlim=(0, None))
    figure.savefig(path, dpi=150)


def _evaluation(graph: Graph, results: Mapping[float, PruneResult], data: Data, metric: str) -> Evaluation:
    with graph.clock.step("evaluate"):
        versions = {title(speedup): result.ir_model for speedup, result in results.items()}
        models = {"original": graph.original, **versions}
        return evaluate_models(models, data.opened().inputs(graph.original), metric, progress=graph.clock.count)


def _speed(result: PruneResult) -> SpeedReport:
    assert result.speed is not None
    return result.speed
