"""Write equal forms of a graph that the runtime at hand runs faster, each decided by timing both here and now.

A runtime fuses what it recognizes, and not every fused kernel is faster than its parts: which one is differs from
version to version and from provider to provider, so nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.bench.stats import PairedRatio
from prunegraph.runtime.edit import Editor

Time = Callable[[ir.Model, ir.Model], PairedRatio]
"""Times two models side by side: how many times faster the second is."""

GAIN = 1.01
"""A form is kept where the lower end of the interval of the ratio is above this."""


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write something else that computes the same.

    Attributes:
        name: What is written for what.
        rewrite: Writes it in place and returns at how many places.
    """

    name: str
    rewrite: Callable[[ir.Graph], int]


@dataclass(frozen=True, slots=True)
class FormTrial:
    """What the timing of one form said.

    Attributes:
        name: The form.
        places: Where it can be written.
        ratio: How many times faster the model is with it.
        kept: Whether it was written.
    """

    name: str
    places: int
    ratio: PairedRatio
    kept: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return asdict(self)


def suit_runtime(model: ir.Model, time: Time) -> tuple[ir.Model, tuple[FormTrial, ...]]:
    """The model in the forms that were faster, and what every timing said.

    Args:
        model: It is not changed.
        time: See `Time`.
    """
    trials = []
    for form in FORMS:
        candidate = model.clone()
        places = form.rewrite(candidate.graph)
        if not places:
            continue
        ratio = time(model, candidate)
        kept = ratio.low > GAIN
        trials.append(FormTrial(form.name, places, ratio, kept))
        if kept:
            model = candidate
    return model, tuple(trials)


def write_forms(model: ir.Model, names: tuple[str, ...]) -> ir.Model:
    """The model in the forms of these names, without a timing: to compare others in the same form."""
    written = model.clone()
    for form in FORMS:
        if form.name in names:
            form.rewrite(written.graph)
    return written


def sum_before_norms(graph: ir.Graph) -> int:
    """Write Sum for the Add of activations before a norm, in place: Add is fused with the norm, Sum is not."""
    editor = Editor(graph)
    adds = [node for node in graph if _adds_before_a_norm(node)]
    for add in adds:
        here = editor.at(add).before()
        new = here.add("Sum", *(value for value in add.inputs if value is not None))
        editor.replace(add.outputs[0], new)
        graph.remove(add, safe=True)
    return len(adds)


def _adds_before_a_norm(node: ir.Node) -> bool:
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return False
    if any(value is None or value.is_initializer() for value in node.inputs):
        return False
    readers = [traits_of(use.node).norm for use in node.outputs[0].uses() if use.idx == 0]
    return any(norm is not None and not norm.by_channel and norm.sum_output is None for norm in readers)


FORMS = (Form("Sum for Add before a norm", sum_before_norms),)
