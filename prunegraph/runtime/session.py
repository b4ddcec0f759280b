"""ONNX Runtime sessions for models in memory, whatever their size and number format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from prunegraph.analysis.read_weight import read_weight
from prunegraph.arrays import Array
from prunegraph.errors import first_line
from prunegraph.runtime.limits import BYTES_A_TRIAL, UNLIMITED, Limits, TooLarge, interruptible, limit_memory
from prunegraph.runtime.limits import CannotRun as CannotRun
from prunegraph.runtime.nest_bodies import nested
from prunegraph.runtime.widen import has_narrow as has_narrow  # found here under the former path for one release
from prunegraph.runtime.widen import widened as widened
from prunegraph.runtime.widen import widened_feeds as widened_feeds

LIGHT = 1024
"""Tensors of fewer bytes travel in the message; shape inference reads them there."""

_IN_MEMORY = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8}


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session is opened.

    Attributes:
        optimize: Whether ONNX Runtime may rewrite the graph.
        prepack: Whether it may keep a second copy of weights in the order that its kernels read them, and threads that
            wait for work without sleep: both are worth it for many runs alone.
        providers: Execution providers, the first choice first.
        trial: Whether it is only tried, within `BYTES_A_TRIAL`.
        fuse_quantized: Whether quantized pairs may be fused, as on a device; that rounds differently from one graph to
            the next.
    """

    optimize: bool = True
    prepack: bool = True
    providers: Sequence[str] = ("CPUExecutionProvider",)
    trial: bool = False
    fuse_quantized: bool = False


@contextlib.contextmanager
def open_session(
    model: ir.Model,
    *,
    optimize: bool = True,
    prepack: bool = True,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    trial: bool = False,
) -> Iterator[ort.InferenceSession]:
    """A session, on the CPU unless told otherwise, that reads the weights where they lie, in memory or mapped.

    Args:
        model: What it runs.
        optimize: See `SessionSettings`.
        prepack: See `SessionSettings`.
        providers: See `SessionSettings`.
        trial: See `SessionSettings`.

    Raises:
        CannotRun: ONNX Runtime does not accept the model.
    """
    message, weights = _without_weights(nested(model))
    with open_message(message, weights, SessionSettings(optimize, prepack, providers, trial)) as session:
        yield session


@contextlib.contextmanager
def open_message(
    message: bytes | str, weights: Mapping[str, Array], settings: SessionSettings
) -> Iterator[ort.InferenceSession]:
    """A session for a message that only refers to its weights, or that holds them, or lies in a file.

    Args:
        message: The model, with references as `without_numbers` makes them; or the path of its file.
        weights: The numbers that they stand for.
        settings: How it is opened.

    Raises:
        CannotRun: ONNX Runtime does not accept the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not settings.fuse_quantized:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not settings.optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not settings.prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
        _let_threads_sleep(options)
    if settings.trial:
        limit_memory(options)
    ort_weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    if ort_weights:
        options.add_external_initializers(list(weights), ort_weights)
    try:
        yield ort.InferenceSession(message, options, providers=list(settings.providers))
    except Exception as error:
        if _from_runtime(error):
            raise CannotRun(first_line(error)) from error
        raise


def _let_threads_sleep(options: ort.SessionOptions) -> None:
    """Threads of a session that has nothing to do do not burn the processor in case that more comes."""
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _without_weights(model: ir.Model) -> tuple[bytes, dict[str, Array]]:
    """The message of a model with references for its weights, and the weights: nothing is copied, nor gets too long.

    The references stand in the model itself while it is written: a copy of the graph takes longer than most runs.
    """
    used = {value for node in model.graph.all_nodes() for value in node.inputs} | {*model.graph.outputs}
    # ONNX Runtime has let go of those that nothing reads when weights are put in.
    tensors = {name: value.const_value for name, value in model.graph.initializers.items() if value in used}
    weights: dict[str, Array] = {}
    try:
        for name, tensor in tensors.items():
            if tensor is not None and is_heavy(tensor):
                reference, weights[name] = without_numbers(tensor, name)
                model.graph.initializers[name].const_value = reference
        return ir.to_proto(model).SerializeToString(), weights
    finally:
        for name in weights:
            model.graph.initializers[name].const_value = tensors[name]


def is_heavy(tensor: ir.TensorProtocol) -> bool:
    """Whether a message refers to a tensor rather than holding it."""
    return tensor.dtype in _IN_MEMORY and tensor.nbytes >= LIGHT


def without_numbers(tensor: ir.TensorProtocol, name: str) -> tuple[ir.ExternalTensor, Array]:
    """What stands for a heavy tensor in a message, and its numbers."""
    array = np.ascontiguousarray(read_weight(tensor))
    dtype, shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    return ir.ExternalTensor("memory", 0, array.nbytes, dtype, shape=shape, name=name, base_dir=""), array


def session_of(proto: onnx.ModelProto, *, trial: bool = False) -> ort.InferenceSession:
    """A session for a small model, unoptimized; `trial` as for `open_session`.

    Raises:
        CannotRun: ONNX Runtime does not accept it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    _let_threads_sleep(options)
    if trial:
        limit_memory(options)
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if _from_runtime(error):
            raise CannotRun(first_line(error)) from error
        raise


def _from_runtime(error: Exception) -> bool:
    return type(error).__module__.startswith("onnxruntime")


def run(
    session: ort.InferenceSession,
    feeds: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
    *,
    limits: Limits = UNLIMITED,
) -> list[Array]:
    """Run once; feeds that the model does not have are left out.

    Args:
        session: What runs.
        feeds: Its inputs.
        outputs: Names of outputs, all if None.
        limits: What it may take; those of memory are the session's, which must have been opened as a trial.

    Raises:
        CannotRun: ONNX Runtime fails, or the run goes beyond the limits.
    """
    taken = {spec.name for spec in (*session.get_inputs(), *session.get_overridable_initializers())}
    given = {name: array for name, array in feeds.items() if name in taken}
    if missing := [spec.name for spec in session.get_inputs() if spec.name not in given]:
        raise CannotRun(f"there is nothing for its input {missing[0]!r}")
    try:
        arrays = interruptible(session, given, outputs, seconds=limits.seconds, shrink=limits.memory)
    except UnicodeDecodeError as error:
        raise CannotRun("a text that it gives is not UTF-8") from error
    except Exception as error:
        if limits.memory and "bfc_arena" in str(error):
            raise TooLarge(f"it takes more than {BYTES_A_TRIAL >> 30} GiB of memory") from error
        if _from_runtime(error) or type(error) is RuntimeError:  # the binding raises plain ones
            raise CannotRun(first_line(error)) from error
        raise
    return [np.asarray(array) for array in arrays]
