"""Translate ONNX element types into torch dtypes."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from prunegraph.errors import ModelError

TYPES: dict[int, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float32,  # trained in float32
    ir.DataType.BFLOAT16: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.INT4: torch.int8,  # one number a byte
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
}

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


def torch_type(number: int) -> torch.dtype:
    """The torch type for an attribute such as `to` of Cast.

    Raises:
        ModelError: torch has none.
    """
    if number not in TYPES:
        name = ir.DataType(number).name
        raise ModelError(f"torch cannot compute with elements of type {name}", hint="convert the model to float32")
    return TYPES[number]


def tensor_of(tensor: ir.TensorProtocol) -> Tensor:
    """A copy of a constant; narrow floats become float32.

    Raises:
        ModelError: torch has no such type.
    """
    dtype = torch_type(tensor.dtype)
    array = tensor.numpy()
    if tensor.dtype in (ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        array = array.astype(str(dtype).removeprefix("torch."))
    return torch.tensor(array, dtype=dtype)


def is_float(dtype: ir.DataType | None) -> bool:
    """Whether weights of the type are trained."""
    return dtype in _FLOATS
