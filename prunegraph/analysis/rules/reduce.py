"""Reductions over axes, and ops that rank or accumulate along one."""

from __future__ import annotations

from prunegraph.analysis.axes import Expr
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, NodeView, Reduce, Reduction
from prunegraph.analysis.rules.elementwise import pointwise

KINDS = {
    "ReduceL1": Reduction.SUM,
    "ReduceL2": Reduction.SUM,
    "ReduceMax": Reduction.MAX,
    "ReduceMean": Reduction.MEAN,
    "ReduceMin": Reduction.MIN,
    "ReduceSum": Reduction.SUM,
    "ReduceSumSquare": Reduction.SUM,
}


@axis_rule("ReduceMean", averages=True, moves=True)
@axis_rule("ReduceSum", moves=True)
@axis_rule("ReduceL2", "ReduceSumSquare", length=True)
@axis_rule("ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd")
def reduction(node: NodeView) -> AxisRule:
    """Reduced axes are consumed in the op's own way, the others pass through."""
    x, y = node.input(0), node.output()
    axes = node.ints("axes", 1)
    if axes is None and node.optional_input(1) is not None:
        return AxisRule(pins=tuple((ref, "reduced along axes that are computed") for ref in (*x, *y)))
    if not axes:
        axes = [] if node.attr("noop_with_empty_axes", 0) else list(range(len(x)))
    gone = {k % len(x) for k in axes}
    kept = [k for k in range(len(x)) if k not in gone]
    targets = [y[k] for k in kept] if node.attr("keepdims", 1) else list(y)
    rule = AxisRule(equal=tuple((x[k], ref) for k, ref in zip(kept, targets, strict=True)))
    kind = KINDS.get(node.op)
    if kind is None:
        return rule + AxisRule(pins=tuple((x[k], f"{node.op} runs along it") for k in gone))
    return rule + AxisRule(reduces=tuple(Reduce(x[k], kind) for k in sorted(gone) if not node.one(x[k])))


@axis_rule("ArgMax", "ArgMin", jumps=True)
def arg(node: NodeView) -> AxisRule:
    """The axis is pinned: the output is a position along it."""
    x, y = node.input(0), node.output()
    axis = node.attr("axis", 0) % len(x)
    kept = [k for k in range(len(x)) if k != axis]
    targets = [y[k] for k in kept] if node.attr("keepdims", 1) else list(y)
    equal: list[tuple[Expr, Expr]] = [(x[k], ref) for k, ref in zip(kept, targets, strict=True)]
    return AxisRule(equal=tuple(equal), pins=((x[axis], f"{node.op} runs along it"),))


@axis_rule("CumSum", "CumProd")
def cumulative(node: NodeView) -> AxisRule:
    """Every axis passes through; the axis of accumulation is pinned."""
    x = node.input(0)
    axis = node.static(1)
    along = x if axis is None else (x[int(axis.reshape(-1)[0]) % len(x)],)
    return pointwise(node, 0) + AxisRule(pins=tuple((ref, f"{node.op} runs along it") for ref in along))


@axis_rule("ReverseSequence")
def reverse_sequence(node: NodeView) -> AxisRule:
    """Time is pinned; there is a length for every slot of the batch."""
    x = node.input(0)
    time, batch = x[node.attr("time_axis", 0)], x[node.attr("batch_axis", 1)]
    pins = ((time, "ReverseSequence runs along it"),)
    return pointwise(node, 0) + AxisRule(equal=((node.input(1)[0], batch),), pins=pins)


@axis_rule("TopK", lengths_from=(1,), jumps=True)
def top_k(node: NodeView) -> AxisRule:
    """The ranked axis is pinned unless all that is done with the positions is to look slots up; the others pass."""
    x = node.input(0)
    axis = node.attr("axis", -1) % len(x)
    if node.positions is None:
        rule = AxisRule(pins=((x[axis], "TopK ranks along it"),))
    else:
        best = node.output()[axis].size[0]
        ranks = Reduce(x[axis], Reduction.RANK, least=best)
        rule = AxisRule(equal=((x[axis], node.positions),), reduces=(ranks,))
    for y in node.outputs:
        if y is not None:
            equal = tuple((x[k], y[k]) for k in range(len(x)) if k != axis)
            rule += AxisRule(equal=equal, pins=((y[axis], "TopK ranks along it"),))
    return rule
