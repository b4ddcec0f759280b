"""Whether a model gives the same outputs on another provider: what computes something else is not worth timing."""

from __future__ import annotations

import os
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx

from prunegraph.arrays import Array
from prunegraph.errors import PruneGraphError
from prunegraph.runtime.on_provider import LoadedModel, ModelSource, load
from prunegraph.runtime.providers import PROVIDERS

TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "int8": 5e-2}
"""By the narrowest numbers in a model, how far its outputs may be from those on the CPU, as a share of their scale."""


def number_format(model: onnx.ModelProto) -> str:
    """The narrowest numbers that a model computes with, a key of `TOLERANCES`."""
    ops = {node.op_type for node in model.graph.node}
    if any("Quantize" in op or op.endswith("Integer") or op == "MatMulNBits" for op in ops):
        return "int8"
    narrow = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return "float16" if any(weight.data_type in narrow for weight in model.graph.initializer) else "float32"


def output_error(expected: Array, actual: Array) -> float:
    """The largest difference over the largest expected number; infinite where shapes or lost numbers differ.

    >>> output_error(np.array([2.0, -4.0]), np.array([2.0, -3.0]))
    0.25
    """
    if expected.shape != actual.shape:
        return float("inf")
    if expected.dtype.kind in "biuOSU":
        return float(np.mean(expected != actual)) if expected.size else 0.0
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(other)):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(wide[finite]).max()) or 1.0
    return float(np.abs(wide[finite] - other[finite]).max()) / scale


def check_parity(model: LoadedModel, source: ModelSource, feeds: Mapping[str, Array], threads: int) -> None:
    """Refuse a model whose outputs on its provider are not those that it has on the CPU.

    Args:
        model: In a session on the provider.
        source: The same model, to be run on the CPU.
        feeds: What both run on.
        threads: Threads inside an operator.

    Raises:
        ModelError: it does not run on these inputs, on its provider or on the CPU.
        PruneGraphError: an output is further off than the tolerance of the model's number format.
    """
    if model.provider.name == "cpu" or any(array.dtype == ml_dtypes.bfloat16 for array in feeds.values()):
        return  # numpy has no bfloat16 to give to a session
    reference, outputs = load(source, model.label, PROVIDERS["cpu"], threads).outputs(feeds), model.outputs(feeds)
    limit = max(TOLERANCES[number_format(_structure(source))], TOLERANCES[model.provider.precision])
    for name, expected in reference.items():
        error = output_error(expected, outputs[name])
        if not error <= limit:
            message = (
                f"the output {name!r} of {model.label} on {model.provider.name} differs by {error:.2g} of its scale"
            )
            hint = (
                "the provider computes in fewer bits, or wrongly; give it other options, or time a model of that format"
            )
            raise PruneGraphError(f"{message} from that on the CPU, more than {limit:g}", hint=hint)


def _structure(source: ModelSource) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        return source
    if isinstance(source, bytes):
        return onnx.ModelProto.FromString(source)
    return onnx.load(os.fspath(source), load_external_data=False)
