"""Numbers that float16 cannot hold: the CPU computes float16 models in float32, so that no output shows them there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from prunegraph.errors import VerificationFailed
from prunegraph.runtime.feeds import Feeds
from prunegraph.runtime.limits import CannotRun
from prunegraph.runtime.session import open_session, run
from prunegraph.runtime.widen import widened_feeds

LARGEST = float(np.finfo(np.float16).max)
MASK = 1e9
"""Numbers this large are written by somebody, to mask what softmax must not see; the converter clips them."""


def check_fits_float16(model: ir.Model, feeds: Iterable[Feeds]) -> None:
    """Refuse a model in which a value grows larger than float16 holds; inner graphs are not looked at.

    Args:
        model: In float32; it is not changed.
        feeds: What it is run on.

    Raises:
        VerificationFailed: a value does; the message names it.
    """
    largest = _largest(model, feeds)
    beyond = {name: size for name, size in largest.items() if LARGEST < size < MASK}
    if beyond:
        name = max(beyond, key=lambda name: beyond[name])
        message = f"the value {name!r} reaches {beyond[name]:,.0f}; float16 ends at {LARGEST:,.0f}"
        raise VerificationFailed(message, hint="quantize to int8 instead, or leave the model in float32")


def _largest(model: ir.Model, feeds: Iterable[Feeds]) -> Mapping[str, float]:
    """By value the largest magnitude in all runs."""
    probe = ShapeInferencePass()(model.clone()).model  # types: only floats are measured
    names: dict[str, str] = {}
    probe.graph.outputs.clear()
    for node in list(probe.graph):
        for value in node.outputs:
            if value.name and value.dtype is ir.DataType.FLOAT:
                names[_append(probe.graph, value)] = value.name
    largest = dict.fromkeys(names.values(), 0.0)
    try:
        with open_session(probe, prepack=False) as session:
            for feed in feeds:
                for name, array in zip(names, run(session, widened_feeds(feed), list(names)), strict=True):
                    largest[names[name]] = max(largest[names[name]], float(array))
    except CannotRun:  # one value is empty, and has no largest: the outputs are compared all the same
        return {}
    return largest


def _append(graph: ir.Graph, value: ir.Value) -> str:
    """Make the magnitude of a value an output of the graph."""
    absolute = ir.node("Abs", [value])
    top = ir.node("ReduceMax", [absolute.outputs[0]], attributes={"keepdims": 0})
    out = top.outputs[0]
    absolute.outputs[0].name, out.name = f"{value.name}/magnitude", f"{value.name}/largest"
    out.type, out.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    graph.extend([absolute, top])
    graph.outputs.append(out)
    return out.name
