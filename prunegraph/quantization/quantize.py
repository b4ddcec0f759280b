"""Quantize a model, and compare what it computes with what the float model computes."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.atomic_write import temporary_folder
from prunegraph.clock import Clock, Progress
from prunegraph.errors import ModelError, PruneGraphError, VerificationFailed
from prunegraph.export.convert import Kind, Model, ModelLike, in_kind, kind_of, open_source
from prunegraph.export.onnx_file import load, save
from prunegraph.observe.data import DataLike
from prunegraph.observe.stream import Data, Inputs
from prunegraph.passes.prove.trial_inputs import Trial, trial_inputs
from prunegraph.quantization.methods import quantized
from prunegraph.quantization.options import Quantize, check_data
from prunegraph.quantization.overflow import check_fits_float16
from prunegraph.runtime.session import CannotRun, SessionSettings, open_message, run
from prunegraph.runtime.widen import widened

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What quantization did, and how far it moved the outputs.

    Attributes:
        method: What was done, such as "dynamic" or "float16+matmul4".
        errors: By output the error relative to its own size: the norm of the difference over the norm of the float
            output; of integers and truths the share that differs.
        limit: The largest that is not refused.
        on: What both models ran on: "data" or "random inputs".
        bytes: Of all weights, before and after.
        ops: How many nodes of each kind are there that were not before.
    """

    method: str
    errors: Mapping[str, float]
    limit: float
    on: str
    bytes: tuple[int, int]
    ops: Mapping[str, int]

    @property
    def worst(self) -> float:
        """The largest error of an output."""
        return max(self.errors.values(), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "method": self.method,
            "max_rel_error": self.worst,
            "errors": dict(self.errors),
            "limit": self.limit,
            "compared_on": self.on,
            "bytes": list(self.bytes),
            "ops": dict(self.ops),
        }


@dataclass(frozen=True)
class QuantizeResult:
    """A quantized model.

    Attributes:
        ir_model: The model.
        report: How far it is from the float model.
        kind: What `model` is.
    """

    ir_model: ir.Model
    report: QuantizeReport
    kind: Kind = field(default=Kind.PROTO, repr=False)

    @cached_property
    def model(self) -> Model:
        """The model in the kind in which the float model was given."""
        return in_kind(self.ir_model, self.kind)

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the model; all of its files appear, or none.

        Raises:
            OutputError: the path is an input, or cannot be written.
        """
        return save(self.ir_model, path)


def quantize(
    model: ModelLike,
    options: Quantize | str | None = None,
    *,
    data: DataLike | Data | None = None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Store a model in fewer bits, and refuse the result if its outputs are far from those of the float model.

    >>> import prunegraph as pg
    >>> pg.quantize("slim.onnx", pg.Quantize("static"), data="texts.npz").save("int8.onnx")  # doctest: +SKIP

    Args:
        model: See `prune_graph`; it is not changed.
        options: A `Quantize`, or the name of a method; dynamic without.
        data: What static quantization takes its ranges from, and what both models are compared on; random inputs
            without.
        progress: Called with the name of each step.

    Raises:
        UsageError: static quantization has no data, or they do not fit the model.
        ModelError: the model cannot be read, or the quantizer of ONNX Runtime fails on it or leaves it as it is.
        VerificationFailed: ONNX Runtime does not run the result, or its outputs are further from the float model's
            than the limit.
    """
    clock = Clock(progress)
    options = Quantize(options) if isinstance(options, str) else options or Quantize()
    opened = Data.open(data)
    check_data(options, opened)
    with clock.step("load"):
        original = open_source(model)
    small, report = quantize_model(original, options, opened, clock)
    return QuantizeResult(small, report, kind_of(model))


def quantize_model(
    model: ir.Model, options: Quantize, data: Data | None, clock: Clock
) -> tuple[ir.Model, QuantizeReport]:
    """The quantized model and what came of the comparison; see `quantize`."""
    inputs = None if data is None else data.inputs(model)
    names = [value.name or "" for value in model.graph.outputs]
    with clock.step("run the float model"):
        trial = _reference(model, names, inputs)
        if "float16" in options.chosen:
            check_fits_float16(widened(model), trial.feeds)
    with temporary_folder() as folder, clock.step("quantize"):
        path = _run_methods(model, options, inputs, folder)
        small = ir.external_data.load_to_model(load(path))  # the folder goes
        _keep_interface(model, small)
        new_ops = _new_ops(model, small)
        if not new_ops and _bytes(small) >= _bytes(model):
            hint = "dynamic and matmul4 quantize matrix products with constant weights, static convolutions as well"
            raise ModelError(f"there is nothing in the model that {options.chosen[-1]} quantizes", hint=hint)
        with clock.step("compare"):
            saved = save(small, folder / "checked" / "model.onnx")
            errors = _compare(saved[0], names, trial)
    small.graph.meta.update(model.graph.meta)
    where = "random inputs" if inputs is None else "data"
    sizes = (_bytes(model), _bytes(small))
    report = QuantizeReport("+".join(options.chosen), errors, options.limit, where, sizes, new_ops)
    _refuse(report)
    return small, report


def _reference(model: ir.Model, names: Sequence[str], inputs: Inputs | None) -> Trial:
    feeds = None if inputs is None else (batch.feeds for batch in inputs.batches())
    try:
        return trial_inputs(widened(model), names, feeds)
    except PruneGraphError as error:
        hint = "give inputs that it accepts (data=…, --data FILE)"
        raise type(error)(error.message.replace("cannot verify", "nothing to compare with"), hint=hint) from error


def _run_methods(model: ir.Model, options: Quantize, inputs: Inputs | None, folder: Path) -> Path:
    """One method after the other, each from a folder of its own; where the last one wrote."""
    names = ["float", *options.chosen]
    for name in (*names, "checked"):
        (folder / name).mkdir()
    paths = [folder / name / "model.onnx" for name in names]
    save(model, paths[0])
    for source, target, method in zip(paths, paths[1:], options.chosen, strict=False):
        quantized(method, source, target, options, inputs)
    return paths[-1]


def _keep_interface(model: ir.Model, small: ir.Model) -> None:
    """Inputs, outputs, their order, dims and types, and all that the file says about itself, as they were."""
    for before, after in zip(
        (*model.graph.inputs, *model.graph.outputs), (*small.graph.inputs, *small.graph.outputs), strict=True
    ):
        if (before.name, before.dtype) != (after.name, after.dtype):
            message = f"the quantizer made {after.name!r} of the input or output {before.name!r}"
            raise ModelError(message, hint="try another method")
        after.shape = before.shape
        after.metadata_props.update(before.metadata_props)
        after.doc_string = before.doc_string
    small.metadata_props.clear()  # a quantizer marks what it was given
    small.metadata_props.update(model.metadata_props)
    small.graph.name, small.graph.doc_string = model.graph.name, model.graph.doc_string
    small.graph.metadata_props.update(model.graph.metadata_props)
    small.producer_name, small.producer_version = model.producer_name, model.producer_version
    small.domain, small.model_version, small.doc_string = model.domain, model.model_version, model.doc_string


def _compare(path: Path, names: Sequence[str], trial: Trial) -> dict[str, float]:
    """By output the largest error over the runs.

    Raises:
        VerificationFailed: ONNX Runtime does not run the model.
    """
    errors = dict.fromkeys(names, 0.0)
    try:
        with open_message(str(path), {}, SessionSettings(fuse_quantized=True)) as session:
            for feeds, expected in zip(trial.feeds, trial.outputs, strict=True):
                for name, array in zip(names, run(session, feeds, names), strict=True):
                    errors[name] = max(errors[name], relative_error(expected[name], array))
    except CannotRun as error:
        hint = "try another method; some need a newer onnxruntime"
        raise VerificationFailed(f"ONNX Runtime does not run the quantized model: {error}", hint=hint) from error
    return errors


def relative_error(expected: Array, actual: Array) -> float:
    """The norm of the difference over the norm of what was expected; infinite where a number is lost.

    >>> relative_error(np.array([3.0, 4.0]), np.array([3.0, 3.5])), relative_error(np.arange(4), np.array([0, 1, 2, 0]))
    (0.1, 0.25)
    """
    if expected.shape != actual.shape:
        return np.inf
    if expected.dtype.kind not in "fV":
        return float(np.mean(expected != actual)) if expected.size else 0.0
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.isfinite(other[finite]).all():
        return np.inf
    size, distance = np.linalg.norm(wide[finite]), np.linalg.norm(wide[finite] - other[finite])
    return float(distance / size) if size else (0.0 if distance == 0 else np.inf)


def _refuse(report: QuantizeReport) -> None:
    far = {name: error for name, error in report.errors.items() if not error <= report.limit}
    if far:
        name = max(far, key=lambda name: far[name])
        distance = (
            f"is {far[name]:.1%} from that of the float model on {report.on}, more than {report.limit:.1%}"
            if math.isfinite(far[name])
            else "is not finite where that of the float model is"
        )
        message = f"after {report.method} quantization the output {name!r} {distance}"
        hint = "try another method, quantize with per_channel, give data, or allow more with max_error (--max-error)"
        raise VerificationFailed(message, hint=hint)


def _new_ops(before: ir.Model, after: ir.Model) -> dict[str, int]:
    def count(model: ir.Model) -> Counter[str]:
        return Counter(node.op_type for graph in model.graphs() for node in graph)

    return dict(sorted((count(after) - count(before)).items()))


def _tensors(model: ir.Model) -> Iterable[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype is not ir.DataType.STRING:
                yield value.const_value


def _bytes(model: ir.Model) -> int:
    return sum(tensor.nbytes for tensor in _tensors(model))
