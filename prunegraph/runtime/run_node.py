"""Run a single node by ONNX Runtime on known operands."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.runtime.session import run, session_of
from prunegraph.runtime.widen import widened, widened_feeds


def evaluate(graph: ir.Graph, node: ir.Node, runs: Sequence[Sequence[Array | None]]) -> list[list[Array]]:
    """What a node makes of its operands, run by run.

    Args:
        graph: Where it stands, for the opsets.
        node: The node; it is not changed.
        runs: For every run one array an operand, None where the node has none.

    Returns:
        For every run one array an output, in the types that the node declares.

    Raises:
        CannotRun: ONNX Runtime does not run it.
    """
    inputs = [
        None if a is None else ir.Value(name=f"x{k}", type=ir.TensorType(_dtype(a)), shape=ir.Shape([None] * a.ndim))
        for k, a in enumerate(runs[0])
    ]
    outputs = [ir.Value(name=f"y{k}" if value.name else "") for k, value in enumerate(node.outputs)]
    twin = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name="node")
    named = [value for value in outputs if value.name]
    packed = [v for v, a in zip(inputs, runs[0], strict=True) if v is not None and a is not None and _is_packed(a)]
    for value, array in ((v, a) for v, a in zip(inputs, runs[0], strict=True) if v in packed):
        assert value is not None and array is not None
        value.const_value, value.shape = ir.tensor(array, name=value.name), ir.Shape(array.shape)
    alone = ir.Graph(
        [v for v in inputs if v and v not in packed],
        named,
        initializers=packed,
        nodes=[twin],
        opset_imports=graph.opset_imports,
        name="node",
    )
    model = ir.Model(alone, ir_version=10)
    dtypes = _types(model, named, inputs)
    for value, dtype in zip(named, dtypes, strict=True):
        value.type = ir.TensorType(dtype)
    session = session_of(ir.to_proto(widened(model)))
    outputs_by_run = []
    for arrays in runs:
        feeds = widened_feeds({f"x{k}": np.array(a, order="C") for k, a in enumerate(arrays) if a is not None})
        typed = [a.astype(dtype.numpy(), copy=False) for a, dtype in zip(run(session, feeds), dtypes, strict=True)]
        by_name = dict(zip((v.name for v in named), typed, strict=True))
        outputs_by_run.append([by_name.get(v.name, np.zeros(0)) for v in outputs])
    return outputs_by_run


def _is_packed(array: Array) -> bool:
    """Whether ONNX Runtime takes no such array from Python: narrow types of ml_dtypes, which only weights have."""
    return array.dtype.num >= 256 and array.dtype != ml_dtypes.bfloat16


def _dtype(array: Array) -> ir.DataType:
    return ir.DataType.from_numpy(array.dtype)


def _types(model: ir.Model, outputs: Sequence[ir.Value], inputs: Sequence[ir.Value | None]) -> list[ir.DataType]:
    """The types of the outputs: inferred, or that of the first operand that is a float."""
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    declared = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.output}
    floats = [v.dtype for v in inputs if v is not None and v.dtype is not None and v.dtype.is_floating_point()]
    default = floats[0] if floats else ir.DataType.FLOAT
    return [ir.DataType(declared[v.name or ""]) if declared.get(v.name or "") else default for v in outputs]
