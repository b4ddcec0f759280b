"""Cut one dense model in many ways, observed once for all of them, and judge what is left by its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

import prunegraph as pg
from prunegraph.passes.choose.select_units import Targets
from prunegraph.passes.repair import Outcome, gather_moments, repaired
from prunegraph.passes.repair.statistics import Gram


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to cut.

    Attributes:
        name: What the tables call it.
        rotate: See `Amount.rotate`.
        scorer: What chooses where nothing turned.
        repairs: Ways of repair, each judged: those of `pg.Repair`, and "once", "auto" without a sweep of exact groups.
        labels: Whether it reads labels.
    """

    name: str
    rotate: bool | None
    scorer: Any
    repairs: tuple[str, ...] = ("auto",)
    labels: bool = False


@dataclass(frozen=True)
class Dense:
    """A trained model with data: to look at while choosing and repairing, and to judge by."""

    model: Path | onnx.ModelProto
    calibration: pg.Data
    validation: pg.Data
    test: pg.Data

    @cached_property
    def graph(self) -> pg.Graph:
        """The model, analysed."""
        return pg.analyze(self.model)


class Slim(NamedTuple):
    """What is left of a model.

    Attributes:
        way: Of repair.
        model: The slim model.
        facts: What the records say of it beside its answers.
        selection: What stays.
        outcomes: What the repair did to every weight.
    """

    way: str
    model: ir.Model
    facts: dict[str, Any]
    selection: pg.Selection
    outcomes: tuple[Outcome, ...] = ()


class Study:
    """One dense model: analysed, turned and observed once for all that is cut of it."""

    def __init__(self, on: Dense) -> None:
        self.on, self._graphs, self._moments = on, dict[str, pg.Graph](), dict[str, Gram | None]()

    def slims(self, amount: pg.Amount, arm: Arm, *, verify: bool) -> Iterator[Slim]:
        """The slim models by every way of repair."""
        plain = self.on.graph
        targets = plain.targets(amount, arm.scorer)
        graph, key = self._turned(targets, arm)
        scores = graph.score(arm.scorer, self.on.calibration, groups=targets.of_group, kept=targets.kept)
        result = graph.apply(graph.select(scores, targets), verify=verify)
        proof = result.report.verify
        before, after = result.report.macs
        facts = {"macs": after / before, "error": proof.max_rel_error if proof is not None else None}
        inputs = graph.inputs(self.on.calibration.opened())
        for way in arm.repairs:
            if way == "none":
                yield Slim(way, result.ir_model, facts, result.selection)
                continue
            keeps = result.selection.keeps(graph.groups)
            prepare = graph.rotated.lengthen if graph.rotated is not None else None
            model, analysis = graph.normalized.model, graph.analysis
            slim, done = repaired(
                model,
                analysis,
                keeps,
                inputs,
                "auto" if way == "once" else way,
                moments=self._seen(graph, key, inputs),
                prepare=prepare,
                sweep_exact=way != "once",
            )
            facts_of_repair = {**facts, "way": done.way, "ways": dict(done.ways)}
            yield Slim(way, slim or result.ir_model, facts_of_repair, result.selection, done.outcomes)

    def _turned(self, targets: Targets, arm: Arm) -> tuple[pg.Graph, str]:
        """The graph in the basis that it is cut in; heads turn once, a stream for every width."""
        if arm.rotate is False:
            return self.on.graph, ""
        heads = [group.id for group in self.on.graph.groups if group.kind in ("qk_dim", "v_dim")]
        widths = {name: n for name, n in targets.kept.items() if name.startswith("hidden")}
        key = f"turned {sorted(widths.items())}"
        if key not in self._graphs:
            self._graphs[key] = self.on.graph.rotate(self.on.calibration, groups=[*heads, *widths], kept=widths)
        return self._graphs[key], key

    def _seen(self, graph: pg.Graph, key: str, inputs: Any) -> Gram | None:
        if key not in self._moments:
            self._moments = {key: gather_moments(graph.normalized.model, graph.analysis, inputs)}
        return self._moments[key]


def record(right: npt.NDArray[np.bool_], **more: Any) -> dict[str, Any]:
    """What is kept of a judgement."""
    return {"right": np.packbits(right).tolist(), "count": len(right), **more}
