"""Which values have lengths that hang on data: what a NonZero counts is nothing to freeze.

Blank weights make all such counts alike, so that runs at two sizes cannot tell.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

_CHOOSE = {
    *("Compress", "NonMaxSuppression", "NonZero", "RegexFullMatch", "StringSplit", "TfIdfVectorizer", "Unique"),
    *("BeamSearch", "DynamicTimeWarping", "GreedySearch", "RemovePadding", "Sampling", "WhisperBeamSearch"),
    *("If", "Loop", "Optional", "OptionalGetElement", "SequenceAt", "SequenceMap", "SequenceEmpty", "SplitToSequence"),
}
"""Ops that make as many slots as the data (or a body, or a branch) say."""

_TOLD_BY = {
    **dict.fromkeys(("CenterCropPad", "Expand", "OneHot", "Pad", "Reshape", "Split", "Tile", "TopK"), (1,)),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), (1,)),
    **dict.fromkeys(("AffineGrid",), (1,)),
    **dict.fromkeys(("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"), (0,)),
    **dict.fromkeys(("Range",), (0, 1, 2)),
    **dict.fromkeys(("Slice",), (1, 2, 3, 4)),
    **dict.fromkeys(("Resize",), (2, 3)),
    **dict.fromkeys(("Upsample",), (1,)),
    **dict.fromkeys(("DFT",), (1, 2)),
    **dict.fromkeys(("STFT",), (1, 3)),
    **dict.fromkeys(("MelWeightMatrix",), (0, 1)),
    **dict.fromkeys(("Col2Im",), (1, 2)),
    **dict.fromkeys(("MaxUnpool",), (2,)),
}
"""Ops whose outputs are as long as an operand says, and which."""


def depends_on_data(graph: ir.Graph, stated: Collection[str]) -> set[str]:
    """Names of values downstream of a choice by data.

    Args:
        graph: Sorted.
        stated: Names of values that follow from constants and from lengths alone.
    """
    known = set(stated) | set(graph.initializers)
    chosen: set[str] = set()
    for node in graph:
        operands = [value.name or "" for value in node.inputs if value is not None]
        if not chosen.isdisjoint(operands) or node.op_type in _CHOOSE or _told_by_data(node, known):
            chosen.update(value.name or "" for value in node.outputs)
    return chosen


def _told_by_data(node: ir.Node, known: Collection[str]) -> bool:
    told_by = (node.inputs[k] for k in _TOLD_BY.get(node.op_type, ()) if k < len(node.inputs))
    return any(value is not None and value.name not in known for value in told_by)
