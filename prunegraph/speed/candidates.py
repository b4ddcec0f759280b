"""Which groups a plan by speed may cut: those that one number for all is for, and with data the dims of heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prunegraph.graph import Graph
from prunegraph.passes.choose.amounts import BUDGETS
from prunegraph.passes.choose.request import Amount
from prunegraph.passes.choose.select_units import in_scope
from prunegraph.passes.rotate.sites import KINDS
from prunegraph.speed.widths import without_widths


def candidates(graph: Graph, amount: Amount, *, dims: bool) -> Amount:
    """An amount that takes something of every group that a plan may cut, to rotate and to score these.

    Dims of heads that can be turned lose little when the last ones go; what they lose is measured on the data. Residual
    widths are not among them where harm is measured: a plan chooses them by themselves, see `width_groups`.

    Args:
        graph: The analysed model.
        amount: What was asked for.
        dims: Whether dims of heads may go where they can be turned: where harm is measured.
    """
    speed: dict[str, Any] = dict.fromkeys(("speedup", "latency_ms", "max_drop", "table", *BUDGETS))
    plain = replace(amount, **speed, search=0.0)
    if dims:
        plain = without_widths(graph, plain)
    if amount.kinds or amount.uniform or not dims or amount.rotate is False:
        return plain
    turned = turnable_groups(graph)
    return replace(plain, ratio=dict.fromkeys([*default_groups(graph, amount), *turned], 0.5)) if turned else plain


def default_groups(graph: Graph, amount: Amount) -> list[str]:
    """The ids of the groups in scope that one number for all kinds is for."""
    return [g.id for g in graph.groups if in_scope(g, graph.scope) and amount.by_default(g.kind, g.exact)]


def turnable_groups(graph: Graph) -> list[str]:
    """The ids of the groups in scope that are dims of heads that can be turned."""
    bases = graph.bases
    return [g.id for g in graph.groups if g.kind in KINDS and bases.get(g.id) == "" and in_scope(g, graph.scope)]
