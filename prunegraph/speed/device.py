"""What a device needs to measure a latency table of a model by itself."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from prunegraph.bench.device_table import Cut
from prunegraph.export.bundle.versions import Versions
from prunegraph.graph import Graph
from prunegraph.observe.fingerprint import fingerprint
from prunegraph.passes.choose.request import Amount
from prunegraph.speed.blocks import blocks_of, units_of
from prunegraph.speed.candidates import default_groups, turnable_groups
from prunegraph.speed.cuts import cut_model, table_cuts
from prunegraph.speed.widths import width_groups, without_widths


def versions_of(graph: Graph, amount: Amount | None = None) -> Versions:
    """The versions of a model that tell how fast its plans are: those that a table is measured with here, too.

    Args:
        graph: The analysed model.
        amount: Its `kinds` and `align` count; by default every group that a plan by speed may cut.
    """
    amount = amount or Amount()
    widths = width_groups(graph, amount)
    amount = without_widths(graph, amount)
    blocks = blocks_of(graph, {*default_groups(graph, amount), *([] if amount.kinds else turnable_groups(graph))})
    cuts = table_cuts(blocks, amount.align, widths)

    def models() -> Iterator[tuple[Cut, ir.Model]]:
        for cut in cuts:
            yield cut, cut_model(graph, cut)

    return Versions(fingerprint(graph.original), units_of(blocks, widths), models)
