"""Nodes seen as other nodes: with fewer inputs, or with their channels elsewhere, so that one rule serves several ops.

The axes that a view holds keep the numbers that they have in the node itself.
"""

from __future__ import annotations

from dataclasses import replace

from prunegraph.analysis.axes import Axes
from prunegraph.analysis.relations import NodeView


def picked(node: NodeView, *inputs: int) -> NodeView:
    """The node as if it had these inputs only."""
    return replace(
        node,
        inputs=tuple(node.optional_input(k) for k in inputs),
        weights=tuple(k >= len(node.weights) or node.weights[k] for k in inputs),
        constants=[node.known(k) for k in inputs],
    )


def channels_first(node: NodeView, *operands: int) -> NodeView:
    """The node with the channels of these inputs and of its outputs as the second axis, where they stand last."""

    def moved(axes: Axes | None) -> Axes | None:
        return axes and (axes[0], axes[-1], *axes[1:-1])

    x = tuple(moved(axes) if k in operands else axes for k, axes in enumerate(node.inputs))
    return replace(node, inputs=x, outputs=tuple(moved(axes) for axes in node.outputs))
