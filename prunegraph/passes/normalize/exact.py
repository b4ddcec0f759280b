"""Where shape inference is exact: it also answers at lengths that the model cannot run, and proves nothing there.

A kernel that does not fit gives `(3 - 14) / 16 + 1`, cut towards zero, which looks like one position at every length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Shape = tuple[int, ...]

_KERNEL_OF_WEIGHT = {
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "NhwcFusedConv", "DeformConv"), 1),
    **dict.fromkeys(("QLinearConv",), 3),
}
"""Op -> the input that holds its kernel."""

_POOLS = {"AveragePool", "LpPool", "MaxPool", "QLinearAveragePool"}


def impossible(
    nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, Shape], integers: Mapping[str, npt.NDArray[Any]]
) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Nodes that do not run at these shapes although inference gave one to what they make, and why.

    Args:
        nodes: Of a graph.
        shapes: What inference says of values.
        integers: What is known of small operands.
    """
    for node in nodes:
        if reason := next(filter(None, (check(node, shapes, integers) for check in _CHECKS)), ""):
            yield node, reason


def _negative(node: onnx.NodeProto, shapes: Mapping[str, Shape], _: Mapping[str, npt.NDArray[Any]]) -> str:
    below = [shapes[name] for name in node.output if min(shapes.get(name, ()), default=0) < 0]
    return f"{node.op_type} {node.name} would make {list(below[0])}" if below else ""


def _elements(node: onnx.NodeProto, shapes: Mapping[str, Shape], _: Mapping[str, npt.NDArray[Any]]) -> str:
    """Inference believes what a Reshape is told; a graph traced for short sequences may not run longer ones."""
    if node.op_type != "Reshape" or {node.input[0], node.output[0]} - shapes.keys():
        return ""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    return "" if math.prod(before) == math.prod(after) else f"{node.name} cannot reshape {before} to {after}"


def _windows(node: onnx.NodeProto, shapes: Mapping[str, Shape], _: Mapping[str, npt.NDArray[Any]]) -> str:
    weight = _KERNEL_OF_WEIGHT.get(node.op_type)
    if (weight is None and node.op_type not in _POOLS) or node.input[0] not in shapes:
        return ""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        return ""
    kernel = attributes.get("kernel_shape") or shapes.get(node.input[weight] if weight is not None else "", ())[2:]
    space = shapes[node.input[0]][2:]
    if len(kernel) != len(space):
        return ""
    pads = attributes.get("pads") or [0] * 2 * len(space)
    dilations = attributes.get("dilations") or [1] * len(space)
    for k, length in enumerate(space):
        window, padded = (kernel[k] - 1) * dilations[k] + 1, length + pads[k] + pads[k + len(space)]
        if window > padded:
            return f"a kernel of {window} of {node.op_type} {node.name} does not fit a length of {padded}"
    return ""


def _rows(node: onnx.NodeProto, shapes: Mapping[str, Shape], integers: Mapping[str, npt.NDArray[Any]]) -> str:
    if node.op_type != "Gather" or node.input[0] not in shapes or not shapes[node.input[0]]:
        return ""
    indices = integers.get(node.input[1])
    if indices is None or not indices.size or indices.dtype.kind not in "iu":
        return ""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    rows = shapes[node.input[0]][axis]
    low, high = int(np.min(indices)), int(np.max(indices))
    return "" if -rows <= low and high < rows else f"{node.op_type} {node.name} looks up row {high} of {rows}"


_CHECKS = (_windows, _elements, _rows, _negative)
