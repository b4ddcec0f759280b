"""A quantized model without the rounding of its activations, so that two of them can be compared to the last digit.

Rounding turns a difference in the last bit into one of a whole step, and layers after it make more of that.  What is
left when activations are only clipped is the structure that a comparison is about; weights stay quantized.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from prunegraph.runtime.edit import Editor, Insertion

_PRODUCTS = {
    "MatMulInteger": ("MatMul", 3, None, None),
    "ConvInteger": ("Conv", 3, None, None),
    "MatMulIntegerToFloat": ("MatMul", 5, 3, 6),
    "DynamicQuantizeMatMul": ("MatMul", 3, 2, 4),
}
"""Op -> the same in floats, and the inputs with zero points and scales of the weight and with a bias."""


def unrounded(model: ir.Model) -> ir.Model:
    """A copy in which activations are not rounded, as far as floats can say that; the model itself if none are."""
    rounding = {"DequantizeLinear", "MatMulNBits", *_PRODUCTS}
    if not any(node.op_type in rounding for node in model.graph):
        return model
    smooth = model.clone()
    editor = Editor(smooth.graph)
    for node in list(smooth.graph):
        if node.op_type == "DequantizeLinear":
            _clip_pair(editor, node)
        elif node.op_type in _PRODUCTS:
            _float_product(editor, node)
        elif node.op_type == "MatMulNBits":
            node.attributes.pop("accuracy_level", None)
    return smooth


def _clip_pair(editor: Editor, node: ir.Node) -> None:
    """`Dequantize(Quantize(x))` becomes x, clipped to what the integers can say."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "QuantizeLinear" or source.inputs[0] is None:
        return
    scale, zero = source.inputs[1], _optional(source, 2)
    scales = get_const_tensor(scale) if scale is not None else None
    zeros = get_const_tensor(zero) if zero is not None else None
    if scales is None or scales.size != 1 or (zero is not None and zeros is None):
        return
    dtype = zeros.dtype if zeros is not None else ir.DataType.UINT8
    if not dtype.is_integer():
        return
    limits = ml_dtypes.iinfo(dtype.numpy())  # type: ignore[no-untyped-call]
    point = int(zeros.numpy().reshape(-1)[0]) if zeros is not None else 0
    value, here = source.inputs[0], editor.at(node).before()
    for op, limit in (("Max", limits.min), ("Min", limits.max)):
        bound = np.float32((int(limit) - point) * float(scales.numpy().reshape(-1)[0]))
        value = here.add(op, value, here.constant(bound))
    _stand_in(here, node, value)


def _float_product(editor: Editor, node: ir.Node) -> None:
    """A product with integers that DynamicQuantizeLinear has made becomes one of what they were made from."""
    op, zero_at, scale_at, bias_at = _PRODUCTS[node.op_type]
    value, weight = node.inputs[0], node.inputs[1]
    step: ir.Value | None = None
    if node.op_type != "DynamicQuantizeMatMul":
        source = value.producer() if value is not None else None
        if source is not None and source.op_type == "Where" and source.inputs[1] is not None:  # masked
            source = source.inputs[1].producer()
        if source is None or source.op_type != "DynamicQuantizeLinear":
            return
        value, step = source.inputs[0], source.outputs[1]
        if scale_at is None and any(user.op_type != "Cast" for user, _ in node.outputs[0].uses()):
            return
    assert value is not None and weight is not None
    here = editor.at(node).before()
    if step is not None and scale_at is None:
        value = here.add("Div", value, step)
    factor = _cast(here, weight)
    if zero := _optional(node, zero_at):
        factor = here.add("Sub", factor, _per_filter(here, node, _cast(here, zero)))
    if scale := _optional(node, scale_at):
        factor = here.add("Mul", factor, scale)
    product = here.add(op, value, factor, copied=node.attributes.values())
    if bias := _optional(node, bias_at):
        product = here.add("Add", product, bias)
    _stand_in(here, node, product)


def _stand_in(here: Insertion, node: ir.Node, new: ir.Value) -> None:
    old = node.outputs[0]
    if old.is_graph_output():
        new.type, new.shape = old.type, old.shape
    here.replace(old, new)


def _optional(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _cast(here: Insertion, value: ir.Value) -> ir.Value:
    return here.add("Cast", value, to=ir.DataType.FLOAT)


def _per_filter(here: Insertion, node: ir.Node, zero: ir.Value) -> ir.Value:
    """Zero points of a convolution stand one a filter, the first axis of its weight."""
    if node.op_type != "ConvInteger":
        return zero
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    shape = np.array([-1] + [1] * (len(weight.shape) - 1), dtype=np.int64)
    return here.add("Reshape", zero, here.constant(shape))
