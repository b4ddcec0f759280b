"""Write equal forms of a graph that the runtime at hand runs faster, each decided by timing both here and now.

A runtime fuses what it recognizes, and not every fused kernel is faster than its parts: which one is differs from
version to version and from provider to provider, so nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.bench.stats import PairedRatio
from prunegraph.runtime.edit import Editor, numbers

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


def guards_behind_products(graph: ir.Graph) -> int:
    """Write the guard of a Softmax against NaN behind the product that reads it, in place, where it is smaller.

    Softmax divides a whole row by one sum, so that a row with one NaN, such as one in which all is masked, is NaN
    throughout: its first number tells.  Zeros times finite numbers are zeros, so that a row may be set to zero before
    the product, or what the product makes of it behind: that is as long as a head is wide, not as long as the sequence.
    """
    editor = Editor(graph)
    guards = [(node, product) for node in graph if (product := _guarded_product(node)) is not None]
    for guard, product in guards:
        condition, zero, weights = guard.inputs
        assert condition is not None and weights is not None
        here = editor.at(product).before()
        begin, end, last = (here.constant(np.array([k]), f"{guard.name}/{k}") for k in (0, 1, -1))
        empty = here.add("IsNaN", here.add("Slice", weights, begin, end, last))
        product.replace_input_with(0, weights)
        behind, output = editor.at(product).after(), product.outputs[0]
        behind.replace(output, behind.add("Where", empty, zero, output, like=output))
        graph.remove(guard, safe=True)
        maker = condition.producer()
        if maker is not None and not condition.uses() and not condition.is_graph_output():
            graph.remove(maker, safe=True)
    return len(guards)


def _guarded_product(guard: ir.Node) -> ir.Node | None:
    """The product that reads a Softmax with zeros where it is NaN, where nothing else does; None if it is none."""
    if guard.op_type != "Where" or guard.domain not in ("", "ai.onnx") or guard.outputs[0].is_graph_output():
        return None
    condition, zero, weights = guard.inputs
    isnan, softmax = (value.producer() if value is not None else None for value in (condition, weights))
    if isnan is None or isnan.op_type != "IsNaN" or isnan.inputs[0] is not weights:
        return None
    if softmax is None or softmax.op_type != "Softmax" or not _along_rows(softmax):
        return None
    constant = None if zero is None else ir.convenience.get_const_tensor(zero)
    if constant is None or constant.size != 1 or constant.numpy().any():
        return None
    uses = list(guard.outputs[0].uses())
    if len(uses) != 1 or uses[0].idx != 0 or uses[0].node.op_type != "MatMul":
        return None
    return uses[0].node if _rank(uses[0].node.inputs[1]) >= 2 else None


def _along_rows(softmax: ir.Node) -> bool:
    """Whether a Softmax goes along the last axis."""
    axis, rank = softmax.attributes.get_int("axis", -1), _rank(softmax.outputs[0])
    return axis == -1 or axis == rank - 1


def _rank(value: ir.Value | None) -> int:
    """How many axes a value has, as far as its shape or the node that makes it says; else 0."""
    if value is None:
        return 0
    if value.shape is not None:
        return len(value.shape)
    maker = value.producer()
    if maker is not None and maker.op_type == "Transpose":
        return len(maker.attributes.get_ints("perm", ()))
    shape = numbers(maker.inputs[1]) if maker is not None and maker.op_type == "Reshape" else None
    return 0 if shape is None else len(shape)


FORMS = (
    Form("Sum for Add before a norm", sum_before_norms),
    Form("guards of Softmax behind products", guards_behind_products),
)
