"""Recurrent layers: every unit has one row in each gate and one column in the recurrence, which sums over the units."""

from __future__ import annotations

from prunegraph.analysis.axes import Axes, Expr, Prod, Ref
from prunegraph.analysis.registry import axis_rule
from prunegraph.analysis.relations import AxisRule, Contraction, NodeView, Reduce, Reduction, SizeSite
from prunegraph.analysis.rules.elementwise import MICROSOFT

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4}
PEEPHOLES = 3


@axis_rule("LSTM", "GRU", "RNN")
def recurrent(node: NodeView) -> AxisRule:
    """`W = [directions, gates·units, inputs]`, `R = [directions, gates·units, units]`; time, directions pinned."""
    return _recurrent(node, node.input(1), node.input(2))


@axis_rule("DynamicQuantizeLSTM", domain=MICROSOFT, stacked=True)
def dynamic_quantize_lstm(node: NodeView) -> AxisRule:
    """An LSTM whose weights stand the other way round, with a scale and a zero point a direction, or one a row of each.

    Inputs and states are quantized on the spot, by their range and zero.
    """
    x, w, r = node.input(0), node.input(1), node.input(2)
    rule = _recurrent(node, (w[0], w[2], w[1]), (r[0], r[2], r[1]), zero=11)
    for weight, parameters in ((w, (8, 9)), (r, (10, 11))):
        for parameter in (node.optional_input(k) for k in parameters):
            if parameter:
                rule += AxisRule(equal=((parameter[0], weight[0]), *zip(parameter[1:], weight[2:], strict=False)))
    # The state is quantized by the range of all units, so that one which is removed must be zero throughout.
    state_refs: list[tuple[Ref, int | None]] = [(w[2], 9), (r[2], 11)]
    state_refs += [(axes[-1], None) for axes in (node.optional_input(k) for k in (3, 5, 6, 7)) if axes]
    rule += AxisRule(reduces=tuple(Reduce(ref, Reduction.SUM, inside=True, zero=zero) for ref, zero in state_refs))
    return rule + AxisRule(reduces=tuple(Reduce(ref, Reduction.SUM) for ref in x[:2] if not node.one(ref)))


def _recurrent(node: NodeView, w: Axes, r: Axes, zero: int | None = None) -> AxisRule:
    """What recurrent layers share, the axes of their weights in the order that ai.onnx gives them.

    Nothing crosses from one direction to the other, so that each may keep units of its own.
    """
    x = node.input(0)
    batch_first = bool(node.attr("layout", 0))
    time, batch = (x[1], x[0]) if batch_first else (x[0], x[1])
    units = r[2]
    directions = node.fresh(w[0].size, "directions", "directions")
    of_state: tuple[Expr, ...] = (batch, directions, units) if batch_first else (directions, batch, units)
    of_output = (batch, time, directions, units) if batch_first else (time, directions, batch, units)
    gates = node.fresh((GATES[node.op],) * node.probes, "gates", "the gates of a unit")
    both = node.fresh((2 * GATES[node.op],) * node.probes, "gates", "the gates of a unit")
    three = node.fresh((PEEPHOLES,) * node.probes, "peepholes", "the gates of a unit")
    equal: list[tuple[Expr, Expr]] = [
        (w[0], directions),
        (r[0], directions),
        (w[1], Prod((gates, units))),
        (r[1], Prod((gates, units))),
        (x[2], w[2]),
    ]
    for k, factor in ((3, both), (7, three)):
        if parameter := node.optional_input(k):
            equal += [(parameter[0], directions), (parameter[1], Prod((factor, units)))]
    if lengths := node.optional_input(4):
        equal += [(lengths[0], batch)]
    pins: list[tuple[Expr, str]] = [(time, f"{node.op} runs along it")]
    for state in (node.optional_input(5), node.optional_input(6), *node.outputs[1:]):
        for ref, expr in zip(state or (), of_state, strict=state is not None):
            if expr is batch and ref.size != batch.size:  # a state for a batch of one, in a model that runs for one
                pins += [(ref, "a state for another batch"), (batch, "a state for another batch")]
            else:
                equal.append((ref, expr))
    equal += zip(node.outputs[0] or (), of_output, strict=node.outputs[0] is not None)
    return AxisRule(
        equal=tuple(equal),
        pins=tuple(pins),
        reduces=(Reduce(x[2], Reduction.SUM), Reduce(units, Reduction.SUM, inside=True, zero=zero)),
        rewrites=(SizeSite("hidden_size", None, units),) if "hidden_size" in node.attributes else (),
        contractions=(
            Contraction((0, 1), (), (x[2], w[2]), (time, batch), (units,), (time, batch, *w)),
            Contraction((0, 2), (r[0],), (units,), (time, batch), (r[1],), (time, batch, *r)),
        ),
    )
