"""Merge byte-equal weights into one initializer."""

from __future__ import annotations

import onnx_ir as ir

from prunegraph.analysis.equal_weights import equal_weights


def merge_equal_weights(graph: ir.Graph) -> None:
    """Let equal weights with two axes or more be one initializer, in place."""
    for name, first in equal_weights(graph).items():
        graph.initializers.pop(name).replace_all_uses_with(graph.initializers[first])
