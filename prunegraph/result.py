"""What the caller gets: a slim model with its plan and its proof."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from prunegraph.analysis.selection import Selection
from prunegraph.export.doors import Kind, Model, in_kind
from prunegraph.export.onnx import save
from prunegraph.passes.filter import Filtered
from prunegraph.report import Report


@dataclass(frozen=True)
class PruneResult:
    """A slim model with its plan and its proof.

    Attributes:
        ir_model: The slim model.
        selection: What stays of every group that got smaller.
        report: What was saved, and how that was checked.
        kind: What `model` is.
        filtered: What candidate filtering did, if it was asked for.
    """

    ir_model: ir.Model
    selection: Selection
    report: Report
    kind: Kind = Kind.PROTO
    filtered: Filtered | None = None

    @cached_property
    def model(self) -> Model:
        """The slim model: an `onnx_ir.Model` or an `onnx_graphsurgeon.Graph` if one was given, else a `ModelProto`."""
        return in_kind(self.ir_model, self.kind)

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the model, and beside it `NAME.plan.json` with what was removed; all files appear or none.

        Raises:
            OutputError: the path is the input, or cannot be written.
        """
        return save(self.ir_model, path, companions={f"{Path(path).stem}.plan.json": self.plan()})

    def plan(self) -> str:
        """The JSON of the plan: what stays of every group that got smaller, and which weights were re-fitted."""
        repair = self.report.repair
        if repair is None or not repair.written:
            return self.selection.to_json()
        return json.dumps({**json.loads(self.selection.to_json()), "repair": repair.written.to_plan()})
