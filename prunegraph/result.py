"""What the caller gets: a slim model with its plan and its proof."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from prunegraph.analysis.selection import Selection
from prunegraph.export.atomic_write import make_folder, stage
from prunegraph.export.convert import Kind, Model, in_kind
from prunegraph.export.onnx_file import save
from prunegraph.passes.choose.head_filter import Filtered
from prunegraph.report import Report

if TYPE_CHECKING:
    from prunegraph.train.finetune import FinetuneResult


@dataclass(frozen=True)
class PruneResult:
    """A slim model with its plan and its proof.

    Attributes:
        ir_model: The slim model.
        selection: What stays of every group that got smaller.
        report: What was saved, and how that was checked.
        kind: What `model` is.
        filtered: What candidate filtering did, if it was asked for.
        tuned: How the slim model was trained again, if that was asked for.
        allow_io: Patterns of graph inputs and outputs that were allowed to shrink.
    """

    ir_model: ir.Model
    selection: Selection
    report: Report
    kind: Kind = Kind.PROTO
    filtered: Filtered | None = None
    tuned: FinetuneResult | None = None
    allow_io: tuple[str, ...] = ()

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
        """The JSON of the plan: what stays of every smaller group, which doors may differ and which weights do."""
        repair = self.report.repair
        changed: dict[str, Any] = {"repair": repair.written.to_plan()} if repair is not None and repair.written else {}
        if self.tuned is not None and self.tuned.best:
            changed["trained"] = True
        if self.allow_io:
            changed["allow_io"] = list(self.allow_io)
        text = self.selection.to_json()
        return json.dumps({**json.loads(text), **changed}) if changed else text

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `prunegraph prune --json` prints."""
        more = {"filter": self.filtered, "finetune": self.tuned}
        return {**self.report.to_dict(), **{name: part.to_dict() for name, part in more.items() if part is not None}}

    def write_report(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write `report.json`, and the figures of scorers that draw some, into a folder.

        Raises:
            OutputError: the folder cannot be made or written to.
            MissingExtra: there are figures to draw, and matplotlib is not installed.
        """
        target = Path(folder) / "report.json"
        make_folder(target.parent)
        with stage(target) as aside:
            figures = [path for a in self.report.accounts.values() if a.draw is not None for path in a.draw(aside)]
            (aside / target.name).write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        return (target, *(target.parent / path.name for path in figures))
