"""The table of small graphs: every nasty case once, as small as it gets, and what the analysis makes of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis, analyze_graph
from prunegraph.analysis.facts import Facts
from prunegraph.passes.normalize import normalize
from tests.graphs.attention import ATTENTION
from tests.graphs.blocks import BLOCKS
from tests.graphs.branches import BRANCHES
from tests.graphs.experts import EXPERT_GRAPHS
from tests.graphs.found import FOUND
from tests.graphs.heads import HEADS
from tests.graphs.misc import MISC
from tests.graphs.odd import ODD
from tests.graphs.vision import VISION

GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    make.__name__: make
    for make in (*ATTENTION, *HEADS, *BLOCKS, *VISION, *MISC, *ODD, *FOUND, *EXPERT_GRAPHS, *BRANCHES)
}


@dataclass(frozen=True, slots=True)
class Analysed:
    """A model as it was given, its normalized form, what the probes saw and what the analysis found."""

    model: ir.Model
    normalized: ir.Model
    facts: Facts
    analysis: Analysis


def analysed_model(proto: onnx.ModelProto) -> Analysed:
    """Normalize and analyse a model."""
    model = ir.from_proto(proto)
    normal = normalize(model)
    return Analysed(model, normal.model, normal.facts, analyze_graph(normal.model.graph, normal.facts))


@functools.cache
def analysed(name: str) -> Analysed:
    """The analysis of one graph of the table."""
    return analysed_model(GRAPHS[name]())
