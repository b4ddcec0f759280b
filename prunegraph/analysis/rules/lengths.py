"""Ops about lengths themselves: what they state must stay what it was, or be written anew."""

from __future__ import annotations

from prunegraph.analysis.ops import EVERY, FIRST, declare
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView, SizeSite
from prunegraph.analysis.rules.elementwise import MICROSOFT

declare("BlackmanWindow", "HammingWindow", "HannWindow", lengths_from=FIRST)
declare("MelWeightMatrix", lengths_from=EVERY)
declare("MaxUnpool", lengths_from=(2,))
declare("If", "NonMaxSuppression", lengths_by_data=True, jumps=True)
declare("Loop", lengths_by_data=True, jumps=True, endless=True)
declare("Optional", "OptionalGetElement", lengths_by_data=True)
declare("RegexFullMatch", "StringSplit", "TfIdfVectorizer", lengths_by_data=True)
declare(
    *("BeamSearch", "DynamicTimeWarping", "GreedySearch", "RemovePadding", "Sampling", "WhisperBeamSearch"),
    domain=MICROSOFT,
    lengths_by_data=True,
)


@axis_rule("Shape", states_lengths=True)
def shape(node: NodeView) -> AxisRule:
    """States the lengths of its input; whatever is computed from them (a scale, say) must keep its old value."""
    x = node.input(0)
    start, end, _ = slice(node.attr("start", 0), node.attr("end", len(x))).indices(len(x))
    return AxisRule(
        equal=tuple((ref, ref) for ref in x),  # any slot may go
        frozen_lengths=tuple(SizeSite(0, k - start, x[k]) for k in range(start, end)),
        pins=tuple((ref, "a vector of lengths") for ref in node.output()),
    )


@axis_rule("Size", states_lengths=True)
def size(node: NodeView) -> AxisRule:
    """A total count cannot be told apart into lengths."""
    return AxisRule(pins=tuple((ref, "Size counts its slots") for ref in node.input(0)))


@axis_rule("ConstantOfShape", counts=True, lengths_from=FIRST)
def constant_of_shape(node: NodeView) -> AxisRule:
    """The same value everywhere: any slot may go, and the operand states the lengths."""
    return AxisRule(rewrites=tuple(SizeSite(0, k, ref) for k, ref in enumerate(node.output())))


@axis_rule("Range", counts=True, lengths_from=EVERY)
def range_(node: NodeView) -> AxisRule:
    """Every slot is a number of its own."""
    return AxisRule(pins=tuple((ref, "Range counts along it") for ref in node.output()))
