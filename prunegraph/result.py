"""What the caller gets: a slim model with its plan and its proof."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from prunegraph.analysis.cost import count_parameters
from prunegraph.analysis.selection import Selection
from prunegraph.analyzed import Analyzed
from prunegraph.atomic_write import make_folder, stage
from prunegraph.bench.profile import NodeTime, node_times
from prunegraph.clock import Clock, Progress
from prunegraph.errors import ModelError, UsageError
from prunegraph.export.convert import Kind, Model, in_kind
from prunegraph.export.onnx_file import files_of, load, name_of, save
from prunegraph.export.report import render, report_facts
from prunegraph.export.report.png import draw_heads, draw_where
from prunegraph.export.report.where import (
    macs_by_block,
    names_of_wholes,
    parameters_by_block,
    times_by_block,
    where_it_lies,
)
from prunegraph.export.torch_tensors import module_tensors
from prunegraph.extras import require_extras
from prunegraph.installed import installed_version
from prunegraph.observe.data import DataLike
from prunegraph.observe.evaluation import Evaluation, evaluate_models
from prunegraph.observe.stream import Data
from prunegraph.passes import annotate
from prunegraph.passes.choose.head_filter import Filtered
from prunegraph.passes.choose.scored import Scores
from prunegraph.passes.dead import to_plan as folded_to_plan
from prunegraph.passes.prove.verify import Verification
from prunegraph.passes.repair import Written
from prunegraph.passes.rotate import to_plan
from prunegraph.pipeline import repair, rewrite, written_out
from prunegraph.proof import compare
from prunegraph.quantization.options import Quantize, check_data
from prunegraph.quantization.quantize import QuantizeReport, quantize_model
from prunegraph.report import Report, SpeedReport
from prunegraph.train.options import Finetune

if TYPE_CHECKING:
    from prunegraph.train.finetune import FinetuneResult


def apply(
    analyzed: Analyzed,
    selection: Selection,
    *,
    check: bool = True,
    data: Data | None = None,
    clock: Clock | None = None,
    forms: tuple[str, ...] = (),
) -> PruneResult:
    """Carry out a selection on an analysed model: shrink, clean up, prove; see `pipeline.rewrite`."""
    clock = clock or Clock()
    selection.check_model(lambda: analyzed.mark)
    slim, report = rewrite(analyzed, selection, check=check, data=data, clock=clock, forms=forms)
    allow_io = tuple(analyzed.scope.allow_io)
    return PruneResult(
        slim, selection, report, analyzed.kind, allow_io=allow_io, forms=forms, analyzed=analyzed, clock=clock
    )


@dataclass(frozen=True, repr=False)
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
        forms: Equal forms that the model is written in, see `passes.rewrite.for_runtime`.
        quantized: How far quantization moved the outputs, if it was asked for.
        speed: How a speed-up that was asked for was found.
        analyzed: The model that this was made from; None if nobody keeps it.
        clock: Told of the steps that follow.
        scores: What the selection was made by, if anybody kept them.
    """

    ir_model: ir.Model
    selection: Selection
    report: Report
    kind: Kind = Kind.PROTO
    filtered: Filtered | None = None
    tuned: FinetuneResult | None = None
    quantized: QuantizeReport | None = None
    allow_io: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    speed: SpeedReport | None = None
    analyzed: Analyzed | None = field(default=None, compare=False)
    clock: Clock = field(default_factory=Clock, compare=False)
    scores: Scores | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        before, after = self.report.params
        proof = "not verified" if self.report.verify is None else "verified" if self.report.verify.ok else "refused"
        return f"PruneResult({len(self.report.groups)} groups smaller, {before:,} to {after:,} parameters, {proof})"

    @cached_property
    def model(self) -> Model:
        """The slim model: an `onnx_ir.Model` or an `onnx_graphsurgeon.Graph` if one was given, else a `ModelProto`."""
        return in_kind(self.ir_model, self.kind)

    def repair(self, data: DataLike | Data, method: str = "auto") -> PruneResult:
        """Re-fit weights that read removed units on data, without gradients and labels; see `Repair`.

        Raises:
            UsageError: the data do not fit the model, or the result was fine-tuned already.
        """
        if self.tuned is not None:
            raise UsageError("a fine-tuned model cannot be repaired", hint="repair first, then fine-tune")
        self._check_floats()
        analyzed = self._analyzed()
        model, what = repair(analyzed, self.selection, method, Data.of(data).opened(), self.clock)
        slim = written_out(model, self.forms) if model is not None else self.ir_model
        params = (self.report.params[0], count_parameters(slim.graph))
        report = replace(self.report, params=params, repair=what, seconds=self.clock.seconds)
        return replace(self, ir_model=slim, report=report)

    def finetune(self, data: DataLike | Data, options: Finetune | None = None) -> PruneResult:
        """Train the slim model again on data, the original as teacher; see `prunegraph.finetune`.

        Raises:
            UsageError: the data do not fit the model.
            MissingExtra: torch is not installed.
        """
        from prunegraph.train.finetune import finetune

        self._check_floats()
        options = options or Finetune()
        with self.clock.step("finetune"):
            tuned = finetune(
                self.ir_model,
                Data.of(data),
                teacher=self._analyzed().original,
                progress=lambda what, done, total: self.clock.count(done),
                **{field.name: getattr(options, field.name) for field in fields(options)},
            )
        report = replace(self.report, seconds=self.clock.seconds)
        return replace(self, ir_model=tuned.ir_model, tuned=tuned, report=report)

    def quantize(self, data: DataLike | Data | None = None, options: Quantize | None = None) -> PruneResult:
        """Store the slim model in fewer bits, compared with the slim model in floats; see `prunegraph.quantize`.

        Raises:
            UsageError: static quantization has no data, or they do not fit the model.
            ModelError: the quantizer of ONNX Runtime fails on it.
            VerificationFailed: the outputs are further from those of the float model than the limit.
        """
        self._check_floats()
        options = options or Quantize()
        opened = Data.open(data)
        check_data(options, opened)
        small, what = quantize_model(self.ir_model, options, opened, self.clock)
        return replace(self, ir_model=small, quantized=what, report=replace(self.report, seconds=self.clock.seconds))

    def _check_floats(self) -> None:
        if self.quantized is not None:
            raise UsageError("the model is quantized", hint="quantize last: what follows works on floats")

    def verify(self, data: DataLike | Data | None = None) -> Verification:
        """Compare the slim model with the masked original once more, on data or on random inputs.

        Weights that were re-fitted are put back to what Shrink makes of the original before that.

        Raises:
            UsageError: the model was fine-tuned or quantized, so that there is nothing to compare.
        """
        if self.tuned is not None and self.tuned.best:
            hint = "verify the result before it is fine-tuned"
            raise UsageError("all weights were trained after the proof: there is nothing to compare", hint=hint)
        self._check_floats()
        written, opened = self._written, Data.open(data)
        return compare(self._analyzed(), self.ir_model, self.selection, repair=written, data=opened, clock=self.clock)

    def to_module(self) -> Any:
        """The slim model as a torch module; see `prunegraph.to_module`."""
        from prunegraph import torch_twin

        tensors = module_tensors(self.analyzed.original) if self.analyzed is not None else None
        if self.analyzed is None or tensors is None:
            return torch_twin.to_torch(self.ir_model)
        from prunegraph.export.to_module import slim_module

        analyzed = self.analyzed
        keeps = self.selection.keeps(analyzed.analysis.groups)
        normalized = analyzed.normalized.model
        return slim_module(self.ir_model, tensors, analyzed.original, normalized, analyzed.analysis, keeps)

    @property
    def _written(self) -> Written:
        """Which initializers are not what Shrink makes: re-fitted ones, and gains of norms of a turned stream."""
        refitted = self.report.repair.written if self.report.repair is not None else Written()
        lengthened = self.report.rotate.lengthened if self.report.rotate is not None else ()
        return replace(refitted, changed=tuple(dict.fromkeys((*refitted.changed, *lengthened))))

    def evaluate(self, data: DataLike | Data, metric: str = "auto", *, output: str = "") -> Evaluation:
        """How good the original and the slim model are on data, both run by ONNX Runtime.

        Args:
            data: Examples, with labels or without.
            metric: One of `observe.evaluation.METRICS`, or `module:function`; "auto" is accuracy where the data have
                labels, else agreement of the argmax with the original.
            output: The output that is judged; the first if empty.

        Raises:
            UsageError: the data do not fit the model, or there is no such metric or output.
        """
        original = self._analyzed().original
        with self.clock.step("evaluate"):
            inputs = Data.of(data).opened().inputs(original)
            models = {"original": original, "slim": self.ir_model}
            return evaluate_models(models, inputs, metric, output=output, progress=self.clock.count)

    def _analyzed(self) -> Analyzed:
        if self.analyzed is None:
            raise UsageError("the result does not know what it was made from", hint="take that of Graph.apply")
        return self.analyzed

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        strip: bool = False,
        shard: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[Path, ...]:
        """Write the model, and beside it `NAME.plan.json` with what was removed; all files appear or none.

        The metadata of the file say what was removed, from what, by which version and plan: see `passes.annotate`.

        Args:
            path: Where to write it.
            strip: Leave out these metadata.
            shard: Split the weights into data files of no more than so many bytes.
            progress: Told how much of a large model is written.

        Raises:
            OutputError: the path is the input, or cannot be written, or there is no room.
        """
        model, plan = self.ir_model.clone(), self.plan()
        if strip:
            annotate.strip(model)
        else:
            counts = {group.id: (group.before, group.after) for group in self.report.groups}
            annotate.note_removal(model, plan, counts, self._name, installed_version())

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(f"save: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

        return save(model, path, companions={f"{Path(path).stem}.plan.json": plan}, shard=shard, progress=report)

    def annotated(self) -> ir.Model:
        """A copy of the original whose nodes and weights say their groups, units, scores, and what stays of them.

        Netron and other tools show that; ONNX Runtime reads none of it, onnx-graphsurgeon drops it.
        """
        analyzed, scores = self._analyzed(), self.scores
        names = scores.names if scores is not None else {}
        return annotate.annotate(
            analyzed.original, analyzed.normalized.model, analyzed.analysis, scores, names, self.selection
        )

    def file_sizes(self, slim: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
        """Bytes of the files, data files included, before and after; nothing where the original was no file.

        Args:
            slim: Where the slim model was saved.
        """
        files = files_of(self._analyzed().original).files
        small = files_of(load(slim)).files
        both = (sum(Path(file).stat().st_size for file in each) for each in (files, small))
        return {"file, bytes": (next(both), next(both))} if files else {}

    @property
    def _name(self) -> str:
        """What the result was made of."""
        return name_of(self._analyzed().original) if self.analyzed is not None else self.ir_model.graph.name or ""

    def plan(self) -> str:
        """The JSON of the plan: what stays of every smaller group, which doors may differ and which weights do."""
        changed: dict[str, Any] = {"repair": self._written.to_plan()} if self._written else {}
        rotation = self.report.rotate.rotation if self.report.rotate is not None else {}
        if cut := {name: each for name, each in rotation.items() if name in self.selection.keep}:
            changed["rotate"] = to_plan(cut)
        if self.tuned is not None and self.tuned.best:
            changed["trained"] = True
        if self.quantized is not None:
            changed["quantized"] = self.quantized.method
        if self.analyzed is not None and self.analyzed.folded is not None:
            changed["dead"] = folded_to_plan(self.analyzed.folded)
        if self.analyzed is not None and self.analyzed.scope.values:
            changed["set"] = dict(self.analyzed.scope.values)
        if self.allow_io:
            changed["allow_io"] = list(self.allow_io)
        mark = self.analyzed.mark if self.analyzed is not None else self.selection.made_for
        return json.dumps({**replace(self.selection, made_for=mark).to_dict(), **changed})

    def to_dict(self) -> dict[str, Any]:
        """The JSON that `prunegraph prune --json` prints."""
        more = {
            "filter": self.filtered,
            "finetune": self.tuned,
            "quantize": self.quantized,
            "speed": self.speed,
        }
        return {**self.report.to_dict(), **{name: part.to_dict() for name, part in more.items() if part is not None}}

    def facts(
        self,
        *,
        latency: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        commands: Sequence[str] = (),
        sizes: Mapping[str, tuple[int, int]] | None = None,
        sweep: Sequence[Mapping[str, Any]] = (),
        times: tuple[Sequence[NodeTime], Sequence[NodeTime]] | None = None,
    ) -> dict[str, Any]:
        """Everything that a report says, as JSON types; `export.report` makes a page or Markdown of it.

        Args:
            latency: What `prunegraph bench --json` prints.
            evaluation: What `prunegraph evaluate --json` prints.
            commands: What reproduces the result.
            sizes: Bytes of files, before and after, by what they are called.
            sweep: Points of a chart, see `speed.versions.Sweep.points`.
            times: What `profile` returned.
        """
        scores = self.scores
        facts = report_facts(
            self._name,
            self._analyzed().analysis,
            self.selection,
            self.to_dict(),
            version=installed_version(),
            scores=scores,
            scorers=scores.names if scores is not None else {},
            sizes=sizes,
            latency=latency,
            evaluation=evaluation if evaluation is not None else self._tuning_evaluation(),
            sweep=sweep,
            commands=commands,
        )
        return {**self.to_dict(), **facts, "where": self._where(times)}

    def profile(self, ep: str = "cpu", **timing: Any) -> tuple[Sequence[NodeTime], Sequence[NodeTime]]:
        """What every node of the original and of the slim model takes, by ONNX Runtime's own profile.

        Args:
            ep: Short name of the execution provider.
            timing: `batch`, `sequence`, `sizes` and `threads` of `bench.compare`.

        Raises:
            ModelError: ONNX Runtime cannot run one of them, or it is too large to be profiled.
        """
        original, slim = (_profiled(model, ep, **timing) for model in (self._analyzed().original, self.ir_model))
        return original, slim

    def _where(self, times: tuple[Sequence[NodeTime], Sequence[NodeTime]] | None) -> list[dict[str, Any]]:
        """Parameters, multiply-adds and milliseconds of every block."""
        analyzed = self._analyzed()
        normalized, analysis = analyzed.normalized.model, analyzed.analysis
        names = names_of_wholes(normalized, analysis.names)
        params = parameters_by_block(analyzed.original, self.ir_model, names, self.report.params)
        macs = macs_by_block(normalized, analysis, self.selection.keeps(analysis.groups), names)
        spent = times_by_block(analyzed.original, self.ir_model, names, times) if times is not None else {}
        return where_it_lies(params, macs, spent)

    def _tuning_evaluation(self) -> dict[str, Any] | None:
        tuned = self.tuned
        if tuned is None or tuned.evaluation is None:
            return None
        return {**tuned.evaluation.to_dict(), "on": "held out from training"}

    def write_report(self, folder: str | os.PathLike[str], facts: Mapping[str, Any] | None = None) -> tuple[Path, ...]:
        """Write `report.html`, `report.md` and `report.json` into a folder, and figures.

        Args:
            folder: It is made if it is not there.
            facts: What `facts` returned; called without arguments if None.

        Raises:
            OutputError: the folder cannot be made or written to.
            MissingExtra: jinja2 or matplotlib is not installed.
        """
        require_extras(["report"])
        facts = facts if facts is not None else self.facts()
        target = Path(folder) / "report.json"
        make_folder(target.parent)
        with stage(target) as aside:
            figures = [path for a in self.report.accounts.values() if a.draw is not None for path in a.draw(aside)]
            figures += (*draw_heads(facts, aside), *draw_where(facts, aside))
            suffixes = (".json", ".html", ".md")
            for suffix in suffixes:
                (aside / f"report{suffix}").write_text(render(facts, suffix), encoding="utf-8")
        return (*(target.with_suffix(suffix) for suffix in suffixes), *(target.parent / path.name for path in figures))


def _profiled(model: ir.Model, ep: str, **timing: Any) -> Sequence[NodeTime]:
    """What every node of a model takes."""
    numbered = model.clone()
    for number, node in enumerate(numbered.graph):
        if not node.name:
            node.name = f"{node.op_type}/{number}"
    try:
        serialized = ir.to_proto(numbered).SerializeToString()
    except ValueError as error:
        raise ModelError("a model of more than 2 GB is not profiled", hint="time it with `prunegraph bench`") from error
    return node_times(serialized, ep, **timing)
