"""Shapes from static inference, for models that ONNX Runtime cannot run."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts

_PRIMES = ((11, 23), (13, 29), (17, 31), (19, 37), (41, 53), (43, 59), (47, 61))


def infer(model: ir.Model) -> Facts:
    """Every shape that `onnx.shape_inference` can tell; each symbol stands for a length of its own."""
    from prunegraph.passes.normalize.probe import integers

    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    symbols: dict[str, Size] = {}
    shapes: dict[str, tuple[Size, ...]] = {}
    for info in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        if info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") or dim.dim_param for dim in dims):
                shapes[info.name] = tuple(_size(dim, symbols) for dim in dims)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple((int(n), int(n)) for n in value.const_value.shape.numpy())
    return Facts(2, shapes, integers(model.graph, {}, 2))


def _size(dim: onnx.TensorShapeProto.Dimension, symbols: dict[str, Size]) -> Size:
    if dim.HasField("dim_value"):
        return (dim.dim_value, dim.dim_value)
    return symbols.setdefault(dim.dim_param, _PRIMES[len(symbols) % len(_PRIMES)])
