"""Pruning as a pass of `onnx_ir`, for sequences of passes of other tools."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from prunegraph.api import prune_graph
from prunegraph.passes.choose.amounts import Ratio
from prunegraph.passes.choose.request import Amount
from prunegraph.result import PruneResult


class PrunePass(ir.passes.FunctionalPass):
    """Prunes a model as `prune_graph` does: what comes out is another model, proven to be the slim original.

    >>> import onnx_ir as ir, prunegraph as pg  # doctest: +SKIP
    >>> from onnx_ir.passes.common import DeduplicateInitializersPass, NameFixPass  # doctest: +SKIP
    >>> passes = ir.passes.Sequential(NameFixPass(), pg.passes.PrunePass(0.5), DeduplicateInitializersPass())
    ... # doctest: +SKIP
    >>> slim = passes(ir.load("model.onnx")).model  # doctest: +SKIP

    Attributes:
        result: What the last call gave: report, selection, proof; None before the first.
    """

    result: PruneResult | None = None

    def __init__(self, amount: Amount | Ratio | None = None, **arguments: Any) -> None:
        """Keep what `prune_graph` is called with.

        Args:
            amount: See `prune_graph`.
            arguments: Its other arguments.
        """
        self.amount, self.arguments = amount, arguments

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Prune; the model that is given stays what it is.

        Raises:
            PruneGraphError: what `prune_graph` raises; the sequence wraps it.
        """
        self.result = prune_graph(model, self.amount, **self.arguments)
        return ir.passes.PassResult(self.result.ir_model, modified=True)
