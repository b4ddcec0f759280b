"""Sparse initializers made dense, since the IR knows only dense ones."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from prunegraph.errors import ModelError

_LIMIT = 1 << 31
_HINT = "make the initializer dense before pruning"


def densify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``proto`` itself, or a copy whose sparse initializers are dense.

    ONNX Runtime does the same when it loads them, so nothing gets slower.

    Raises:
        ModelError: A dense form would not fit into a model file, or the indices are malformed.
    """
    if not proto.graph.sparse_initializer:
        return proto
    dense = onnx.ModelProto()
    dense.CopyFrom(proto)
    dense.graph.initializer.extend(_dense(each) for each in dense.graph.sparse_initializer)
    del dense.graph.sparse_initializer[:]
    return dense


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Scatter ``values`` to ``indices``, which are flat (NNZ) or one row of coordinates each (NNZ, rank)."""
    name, dims = sparse.values.name, tuple(sparse.dims)
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    if math.prod(dims) * values.itemsize >= _LIMIT:
        raise ModelError(f"the sparse initializer {name!r} exceeds 2 GiB when dense", hint=_HINT)
    full = np.zeros(dims, values.dtype)
    try:
        if indices.ndim == 1:
            full.reshape(-1)[indices] = values
        else:
            full[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"the indices of the sparse initializer {name!r} are malformed: {error}", hint=_HINT
        ) from error
    return numpy_helper.from_array(full, name)
