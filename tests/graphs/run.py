"""Run a graph as a stranger would: ONNX Runtime with its own settings, none of ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort


def outputs(model: onnx.ModelProto | ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Every output of a model in memory."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return list(ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds))
