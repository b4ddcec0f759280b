"""State the scale of fused attention: what an op would take from the head size becomes an attribute.

`1/sqrt(head_size)` must stay what it was when heads get narrower.  The widths of a fused qkv weight are stated as
well, since values may become narrower than queries and keys.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from prunegraph.analysis.axes import Size
from prunegraph.analysis.facts import Facts

_MICROSOFT = "com.microsoft"


def state_scales(graph: ir.Graph, facts: Facts) -> None:
    """Write `scale` (and `qkv_hidden_sizes`) on every fused attention that leaves it out, in place."""
    for node in graph:
        widths = _widths(node, facts)
        if widths is None:
            continue
        heads, queries = widths
        scale = node.attributes.get_float("scale", 0.0)
        if (scale == 0.0 if node.domain == _MICROSOFT else "scale" not in node.attributes) and queries % heads == 0:
            node.attributes["scale"] = ir.AttrFloat32("scale", 1.0 / math.sqrt(queries // heads))
        if node.domain == _MICROSOFT and node.op_type == "Attention" and "qkv_hidden_sizes" not in node.attributes:
            node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s("qkv_hidden_sizes", [queries] * 3)


def _widths(node: ir.Node, facts: Facts) -> tuple[int, int] | None:
    """The number of query heads and how wide they are together; None for other ops, and where it is unknown."""
    shapes = [facts.shapes.get(value.name or "") if value is not None else None for value in node.inputs]
    match node.domain, node.op_type:
        case ("" | "ai.onnx", "Attention"):
            count, width = _width(node, shapes[0], "q_num_heads")
        case (_, "MultiHeadAttention") if node.domain == _MICROSOFT:
            count, width = _width(node, shapes[0], "num_heads")
        case (_, "GroupQueryAttention") if node.domain == _MICROSOFT:
            count, width = _width(node, shapes[0], "num_heads")
            packed = len(shapes) < 2 or shapes[1] is None
            if packed and width is not None:
                width = width * count // (count + 2 * node.attributes.get_int("kv_num_heads", count))
        case (_, "Attention" | "QAttention") if node.domain == _MICROSOFT:
            sizes = node.attributes.get_ints("qkv_hidden_sizes") if "qkv_hidden_sizes" in node.attributes else None
            weight = shapes[1]
            count = node.attributes.get_int("num_heads", 1)
            width = sizes[0] if sizes else _static(weight[1]) // 3 if weight else None
        case _:
            return None
    return (count, width) if count and width else None


def _width(node: ir.Node, shape: tuple[Size, ...] | None, heads: str) -> tuple[int, int | None]:
    """Heads and their total width of an operand `[batch, positions, heads·width]`, or with heads and width apart."""
    if shape is None:
        return 0, None
    if len(shape) == 3:
        return node.attributes.get_int(heads, 1), _static(shape[2])
    count = _static(shape[2] if len(shape) == 5 else shape[1])
    return count, count * _static(shape[-1])


def _static(size: Size) -> int:
    return size[0] if len(set(size)) == 1 else 0
