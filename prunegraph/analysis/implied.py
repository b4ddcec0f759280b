"""What holds of every node whatever its rule says: nothing moves that nobody has spoken for."""

from __future__ import annotations

from prunegraph.analysis.axes import refs_of
from prunegraph.analysis.ops import traits_of
from prunegraph.analysis.relations import AxisRule, NodeView, Reduction


def unsaid(view: NodeView, rule: AxisRule) -> AxisRule:
    """Axes that a rule says nothing about stay whole: what is not known to be free is not free."""
    exprs = [*(expr for pair in rule.equal for expr in pair), *(expr for expr, _ in rule.pins), *rule.copies]
    exprs += [*(reduce.ref for reduce in rule.reduces), *(site.states for site in rule.sizes)]
    said = {ref for expr in exprs for ref in refs_of(expr)}
    unsaid = [ref for axes in (*view.x, *view.y) for ref in axes or () if ref not in said and not view.one(ref)]
    return AxisRule(pins=tuple((ref, f"{view.op} gives it no meaning") for ref in unsaid))


def statistics(view: NodeView, rule: AxisRule) -> AxisRule:
    """What is summed to a norm of a weight stays whole: a unit that goes would change the norm, though it is zero.

    A mean over a weight is no different from one over activations: the axis may shrink, but not exactly.
    """
    if not all(view.weights) or rule.contractions:
        return AxisRule()
    sums = [reduce.ref for reduce in rule.reduces if reduce.kind is not Reduction.MEAN]
    return AxisRule(pins=tuple((ref, f"{view.op} of a weight") for ref in sums))


def unmasked_means(view: NodeView, rule: AxisRule) -> AxisRule:
    """A mean that no trait tells how to take over what stays keeps its axes whole: nothing could prove the result."""
    traits = traits_of(view.op, view.domain)
    if traits.norm is not None or traits.averages:
        return AxisRule()
    means = [reduce.ref for reduce in rule.reduces if reduce.kind is Reduction.MEAN]
    return AxisRule(pins=tuple((ref, f"there is no masked form of {view.op}") for ref in means))
