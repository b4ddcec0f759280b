"""Recurrent layers: every unit has one row in each gate and one column in the recurrence, which sums over the units."""

from __future__ import annotations

from prunegraph.analysis.axes import Expr, Prod
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, Contraction, NodeView, Reduce, Reduction, SizeSite

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3


@axis_rule(*GATES)
def recurrent(node: NodeView) -> AxisRule:
    """`W = [directions, gates·units, inputs]`, `R = [directions, gates·units, units]`; time, directions pinned."""
    x, w, r = node.input(0), node.input(1), node.input(2)
    batch_first = bool(node.attr("layout", 0))
    time, batch = (x[1], x[0]) if batch_first else (x[0], x[1])
    units, directions = r[2], w[0]
    of_state = (batch, directions, units) if batch_first else (directions, batch, units)
    of_output = (batch, time, directions, units) if batch_first else (time, directions, batch, units)
    gates = node.fresh((GATES[node.op],) * node.probes, "gates", "the gates of a unit")
    both = node.fresh((2 * GATES[node.op],) * node.probes, "gates", "the gates of a unit")
    three = node.fresh((PEEPHOLES,) * node.probes, "peepholes", "the gates of a unit")
    equal: list[tuple[Expr, Expr]] = [
        (w[1], Prod((gates, units))),
        (r[1], Prod((gates, units))),
        (r[0], directions),
        (x[2], w[2]),
    ]
    for k, factor in ((3, both), (7, three)):
        if parameter := node.optional_input(k):
            equal += [(parameter[0], directions), (parameter[1], Prod((factor, units)))]
    if lengths := node.optional_input(4):
        equal += [(lengths[0], batch)]
    for state in (node.optional_input(5), node.optional_input(6), *node.outputs[1:]):
        equal += zip(state or (), of_state, strict=state is not None)
    equal += zip(node.outputs[0] or (), of_output, strict=node.outputs[0] is not None)
    return AxisRule(
        equal=tuple(equal),
        pins=((time, f"{node.op} runs along it"), (directions, "directions")),
        reduces=(Reduce(x[2], Reduction.SUM), Reduce(units, Reduction.SUM, inside=True)),
        rewrites=(SizeSite("hidden_size", None, units),) if "hidden_size" in node.attributes else (),
        contractions=(
            Contraction((0, 1), (), (x[2], w[2]), (time, batch), (units,), (time, batch, *w)),
            Contraction((0, 2), (), (units,), (time, batch), (r[1],), (time, batch, *r)),
        ),
    )
