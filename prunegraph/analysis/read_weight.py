"""Read the numbers of weights one at a time, without holding on to the file that they lie in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from prunegraph.arrays import Array
from prunegraph.errors import ModelError

SAMPLE = 16
"""So many neighbours are looked at before all of a weight is."""


class LateTensor(ir.LazyTensor):
    """A tensor that is made of a weight in a data file whenever somebody reads it, and kept by nobody."""

    __slots__ = ()


def late(make: Callable[[], Array], dtype: ir.DataType, shape: Sequence[int], name: str | None) -> LateTensor:
    """A tensor of numbers that are made anew each time they are read.

    Args:
        make: Makes them.
        dtype: Their type.
        shape: Their shape.
        name: The tensor's.
    """

    def tensor() -> ir.TensorProtocol:
        array = make()
        assert array.shape == tuple(shape), f"{name} was to have the shape {tuple(shape)}, and has {array.shape}"
        return ir.Tensor(array, dtype=dtype, name=name)

    return LateTensor(tensor, dtype, ir.Shape(shape), name=name)


def lies_in_file(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is read from a data file whenever somebody asks for its numbers."""
    return isinstance(tensor, (ir.ExternalTensor, LateTensor))


def read_weight(tensor: ir.TensorProtocol) -> Array:
    """The numbers of a weight; those of a data file are mapped for as long as the array lives, and no longer.

    A tensor of `onnx_ir` keeps what was read once, so that in the end the whole file is in memory.

    Raises:
        ModelError: The data file has gone or become shorter since the model was opened.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    unread = ir.ExternalTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=tensor.name or "",
        base_dir=tensor.base_dir,
    )
    try:
        return unread.numpy()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the data file {tensor.path} cannot be read any more; it holds {tensor.name!r}: {error}",
            hint="it changed while it was being read; put it back and start again",
        ) from error


def initializer_tensor(model: ir.Model, name: str) -> ir.TensorProtocol:
    """The tensor of an initializer of a model.

    Raises:
        KeyError: the model has no such initializer.
    """
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor


def read_initializer(model: ir.Model, name: str) -> Array:
    """The numbers of an initializer of a model, see `read_weight`; arguments as for `initializer_tensor`."""
    return read_weight(initializer_tensor(model, name))


def read_samples(tensor: ir.TensorProtocol, runs: int, length: int) -> Array:
    """Some of a tensor's numbers, `[runs, length]`: neighbours, the runs as far apart as can be.

    Args:
        tensor: Has at least `runs * length` numbers; of one in a data file the rest is not read.
        runs: How many.
        length: How long each is.
    """
    starts = [k * (tensor.size // runs) for k in range(runs)]
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= 8:
        return np.stack([read_weight(_run(tensor, start, length)) for start in starts])
    flat = read_weight(tensor).reshape(-1)
    return np.stack([flat[start : start + length] for start in starts])


def _run(tensor: ir.ExternalTensor, start: int, length: int) -> ir.ExternalTensor:
    """Neighbours in a tensor as one of their own."""
    width = tensor.dtype.bitwidth // 8
    offset = (tensor.offset or 0) + start * width
    return ir.ExternalTensor(
        tensor.location,
        offset,
        length * width,
        tensor.dtype,
        shape=ir.Shape((length,)),
        name=tensor.name or "",
        base_dir=tensor.base_dir,
    )


def is_uniform(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor holds one number only; of most a few tell that they do not."""
    if tensor.size > SAMPLE and not _is_one_number(read_samples(tensor, 1, SAMPLE)):
        return False
    return _is_one_number(read_weight(tensor))


def _is_one_number(array: Array) -> bool:
    return bool(np.all(array == array.reshape(-1)[:1]))
