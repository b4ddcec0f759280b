"""What an op is, beside what its rule says of axes: traits that passes ask for instead of naming ops.

A trait stands where the rule of its op is registered: `@axis_rule("LayerNormalization", norm=Norm(centred=True))`.  An
op that has no rule states its traits with `declare`.  What nothing is known of has no trait, so a pass that needs one
refuses or pins it and never takes it for another op.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Norm:
    """How a normalization over some of its axes is spelt out.

    Attributes:
        centred: Whether the mean is subtracted; else only the root of the mean square divides.
        by_channel: Whether scale and offset belong to axis 1 (BatchNormalization) and not to the last axes.
        scale: The input that scales; the offset, of a centred norm, follows it.
        sum_output: The output that holds what the op adds up before it normalizes the last axis; None where it
            normalizes its first input.
        epsilon: What is added to the variance where the attribute is left out.
    """

    centred: bool
    by_channel: bool = False
    scale: int = 1
    sum_output: int | None = None
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class Lookup:
    """An input that holds positions along an axis of another.

    Attributes:
        by: The input that holds the positions.
        table: The input that is looked up.
        attribute: The attribute that names the axis of the table; the first axis where there is none.
        tuples: Whether the last axis of the positions counts over several axes of the table.
        rows: Whether the op gives whole rows of the table, as an embedding does.
        ranked: Whether the op's rule follows `NodeView.positions`, so that a router may rank what is looked up.
    """

    by: int
    table: int = 0
    attribute: str = ""
    tuples: bool = False
    rows: bool = True
    ranked: bool = False

    def axis(self, node: ir.Node) -> int:
        """The axis of the table along which a node looks up."""
        return node.attributes.get_int(self.attribute, 0) if self.attribute else 0


FIRST = (0,)
"""The first input alone."""

EVERY = range(1 << 16)
"""Every input, however many there are."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of an op.  Inputs are given by number.

    Attributes:
        norm: How it normalizes, None where it does not.
        averages: It gives the mean over the axes that it reduces, and nothing else.
        pools: It reduces all axes from the third on.
        stacked: Its weights, and their scales and zero points, stand one a direction along the first axis.
        carries: Inputs whose numbers it hands on unchanged, some of them or all, in whatever arrangement.
        reshapes: It gives all numbers of its first input in the same row-major order, under another shape.
        permutes: It gives all numbers of its first input, its axes in another order.
        keeps_order: Along an axis, what was larger is larger still.
        linear: Its output is a linear (or affine) function of one input while the others stay what they are.
        moves: It puts numbers elsewhere, or adds some up, in the same way for all slots of an axis that it keeps.
        mixes: Inputs that it adds up, or chooses among, position by position.
        length: It sums squares over the axes that it reduces, perhaps under a root.
        nonnegative: What it gives is never below zero, and zero where its input is zero.
        bounded: What it gives is never above one nor below minus one, and zero where its input is zero.
        lifts_zero: It makes something else of zero.
        keeps_zero: What it gives is zero where all its operands are.
        pointwise: What it gives at a position hangs on nothing but what its operands hold at that position.
        softmax: It is a Softmax along one axis.
        exponential: It is the exponential function, of which a Softmax can be made.
        looks_up: Its tables, and what they are looked up by.
        contracts: It sums products of two operands (or convolves one with the other).
        bias: The input that is added to what it contracts.
        adds: It adds up inputs of the same shape, as a residual connection does.
        multiplies: It multiplies its operands, or divides the first by the second.
        broadcasts: All its operands broadcast against each other, each of them, as numpy does it.
        parameters: Inputs that are learnt even where they are one number.
        fixed: Inputs that are never learnt: running statistics, scales of a quantization, windows.
        quantizes: It makes integers of numbers by a scale and a zero point, or numbers of such integers.
        random: It draws numbers.
        varies: It stands for what differs from trip to trip of a loop, whatever it is given.
        counts: It makes as many numbers as an input says.
        lengths_from: Inputs whose numbers say how long its outputs are.
        lengths_by_data: How long its outputs are hangs on what it is given (or on a body, or on a branch), not on the
            lengths of that alone.
        jumps: Its outputs jump where its inputs move a little: it compares, ranks, rounds, or takes a branch.
        endless: Nothing but what it computes says when it ends.
        states_lengths: It states lengths of its input, and nothing that its input holds.
        sequences: It deals in sequences of tensors.
    """

    norm: Norm | None = None
    averages: bool = False
    pools: bool = False
    stacked: bool = False
    carries: Collection[int] = ()
    reshapes: bool = False
    permutes: bool = False
    keeps_order: bool = False
    linear: bool = False
    moves: bool = False
    mixes: Collection[int] = ()
    length: bool = False
    nonnegative: bool = False
    bounded: bool = False
    lifts_zero: bool = False
    keeps_zero: bool = False
    pointwise: bool = False
    softmax: bool = False
    exponential: bool = False
    looks_up: tuple[Lookup, ...] = ()
    contracts: bool = False
    bias: int | None = None
    adds: bool = False
    multiplies: bool = False
    broadcasts: bool = False
    parameters: tuple[int, ...] = ()
    fixed: Collection[int] = ()
    quantizes: bool = False
    random: bool = False
    varies: bool = False
    counts: bool = False
    lengths_from: Collection[int] = ()
    lengths_by_data: bool = False
    jumps: bool = False
    endless: bool = False
    states_lengths: bool = False
    sequences: bool = False

    @property
    def looked_up_by(self) -> dict[int, Lookup]:
        """Its tables by the input that holds positions in them."""
        return {lookup.by: lookup for lookup in self.looks_up}


NO_TRAITS = Traits()
TRAITS: dict[tuple[str, str], Traits] = {}
"""(domain, op type) -> traits; "" is the domain of ai.onnx."""


def declare(*ops: str, domain: str = "", **traits: Any) -> None:
    """State the traits of ops (fields of `Traits`) that have no rule to state them beside.

    Raises:
        ValueError: the traits of one of them have been stated already.
    """
    stated = Traits(**traits)
    for op in ops:
        if (domain, op) in TRAITS:
            raise ValueError(f"the traits of {op} of domain {domain!r} are stated twice")
        TRAITS[domain, op] = stated


def traits_of(op: ir.Node | str, domain: str = "") -> Traits:
    """The traits of a node, or of an op of a domain; none where nothing is known of it.

    >>> traits_of("LayerNormalization").norm
    Norm(centred=True, by_channel=False, scale=1, sum_output=None, epsilon=1e-05)
    >>> traits_of("LayerNormalization", "org.example").norm is None
    True
    """
    if isinstance(op, ir.Node):
        return traits_of(op.op_type, op.domain)
    return TRAITS.get(("" if domain == "ai.onnx" else domain, op), NO_TRAITS)
