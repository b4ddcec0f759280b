"""ONNX Runtime sessions for models in memory, whatever their size and number format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

Array = npt.NDArray[Any]

LIGHT = 1024
"""Tensors of fewer bytes travel in the message; shape inference reads them there."""

_IN_MEMORY = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8}


class CannotRun(Exception):
    """ONNX Runtime refuses a model or a run of it."""


@contextlib.contextmanager
def open_session(
    model: ir.Model,
    *,
    optimize: bool = True,
    prepack: bool = True,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Iterator[ort.InferenceSession]:
    """A session, on the CPU unless told otherwise, that reads the weights where they lie, in memory or mapped.

    Args:
        model: What it runs.
        optimize: Whether ONNX Runtime may rewrite the graph.
        prepack: Whether it may keep a second copy of weights in the order that its kernels read them: worth it for many
            runs.
        providers: Execution providers, the first choice first.

    Raises:
        CannotRun: ONNX Runtime does not accept the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Quantized pairs are computed as written: fusing them rounds differently from one graph to the next.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    light, weights = _without_weights(model)
    held = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    if held:
        options.add_external_initializers(list(weights), held)
    try:
        yield ort.InferenceSession(ir.to_proto(light).SerializeToString(), options, providers=list(providers))
    except Exception as error:
        if _from_runtime(error):
            raise CannotRun(_first_line(error)) from error
        raise


def _without_weights(model: ir.Model) -> tuple[ir.Model, dict[str, Array]]:
    """The model with references for its weights, and the weights: nothing is copied, and no message gets too long."""
    weights: dict[str, Array] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= LIGHT and tensor.dtype in _IN_MEMORY:
            weights[name] = np.ascontiguousarray(tensor.numpy())
    if not weights:
        return model, weights
    light = model.clone()
    for name, array in weights.items():
        value = light.graph.initializers[name]
        dtype = ir.DataType.from_numpy(array.dtype)
        value.const_value = ir.ExternalTensor(
            "memory", 0, array.nbytes, dtype, shape=ir.Shape(array.shape), name=name, base_dir=""
        )
    return light, weights


def session_of(proto: onnx.ModelProto) -> ort.InferenceSession:
    """A session for a small model, unoptimized.

    Raises:
        CannotRun: ONNX Runtime does not accept it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if _from_runtime(error):
            raise CannotRun(_first_line(error)) from error
        raise


def _from_runtime(error: Exception) -> bool:
    return type(error).__module__.startswith("onnxruntime")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def run(session: ort.InferenceSession, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
    """Run once; feeds that the model does not have are left out.

    Raises:
        CannotRun: ONNX Runtime fails.
    """
    wanted = {spec.name for spec in session.get_inputs()}
    try:
        found = session.run(outputs, {name: array for name, array in feeds.items() if name in wanted})
    except UnicodeDecodeError as error:
        raise CannotRun("a text that it gives is not UTF-8") from error
    except Exception as error:
        if _from_runtime(error):
            raise CannotRun(_first_line(error)) from error
        raise
    return [np.asarray(array) for array in found]


_NARROW = {ir.DataType.BFLOAT16, ir.DataType.FLOAT16}


def has_narrow(model: ir.Model) -> bool:
    """Whether any value of the model is float16 or bfloat16."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    return any(value.dtype in _NARROW for value in values) or any(
        _narrow_attribute(a) for node in model.graph.all_nodes() for a in node.attributes.values()
    )


def widened(model: ir.Model) -> ir.Model:
    """The model in float32, or the model itself if it has no narrower floats.

    ONNX Runtime has no bfloat16 on most CPUs, and float16 rounds away the differences that a comparison looks for.
    """
    if not has_narrow(model):
        return model
    wide = model.clone()
    for graph in wide.graphs():
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            if value.dtype in _NARROW:
                value.type = ir.TensorType(ir.DataType.FLOAT)  # clones share type objects: never change one in place
        for value in graph.initializers.values():
            if value.dtype in _NARROW and value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
                value.type = ir.TensorType(ir.DataType.FLOAT)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if _narrow_attribute(attribute):
                    node.attributes[name] = _widen_attribute(attribute)
    return wide


def _narrow_attribute(attribute: ir.Attr) -> bool:
    if attribute.type == ir.AttributeType.INT and attribute.name in ("to", "dtype", "stash_type", "output_dtype"):
        return attribute.as_int() in _NARROW
    return attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _NARROW


def _widen_attribute(attribute: ir.Attr) -> ir.Attr:
    if attribute.type == ir.AttributeType.INT:
        return ir.AttrInt64(attribute.name, int(ir.DataType.FLOAT))
    return ir.AttrTensor(attribute.name, ir.tensor(attribute.as_tensor().numpy().astype(np.float32)))


def widened_feeds(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds for a widened model."""
    narrow = (np.float16, ml_dtypes.bfloat16)
    return {name: array.astype(np.float32) if array.dtype in narrow else array for name, array in feeds.items()}
