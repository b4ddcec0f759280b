"""What one node says about axes: the facts a rule is given and the relations it returns, all plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.analysis.axes import Expr, Fresh, Ref, Size

IntArray = npt.NDArray[Any]


class Reduction(Enum):
    """How an axis is consumed: removing a slot equals zeroing it under SUM.

    Under MAX and MIN it equals that only where zero cannot be the largest or smallest of them.  Under MEAN and RANK
    (a router's Softmax and TopK) what stays is weighed against fewer others.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"
    RANK = "rank"

    @property
    def weighs(self) -> bool:
        """Whether what stays counts for more when something goes."""
        return self in (Reduction.MEAN, Reduction.RANK)


@dataclass(frozen=True, slots=True)
class Reduce:
    """The node reduces an axis of one of its inputs.

    `inside` says that the sum is taken within the node, so that masking another operand is not enough where this one
    is a weight; `zero` is the number of the input that holds what adds nothing (a zero point); `least` is how many
    slots must stay.
    """

    ref: Ref
    kind: Reduction
    inside: bool = False
    zero: int | None = None
    least: int = 1


@dataclass(frozen=True, slots=True)
class SizeSite:
    """An integer that states a length.

    `place` is the number of the input that holds it or the name of the attribute, `entry` its position there (None: a
    scalar), `states` the expression whose length it states, `sign` -1 where it counts from the end.
    """

    place: int | str
    entry: int | None
    states: Expr
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Contraction:
    """A sum of products of two operands, or a convolution; gives kinds of groups and MACs.

    `batch`, `summed`, `left` and `right` hold axes of the operands; `macs` are the expressions whose lengths multiply
    to MACs.
    """

    operands: tuple[int, int]
    batch: tuple[Expr, ...]
    summed: tuple[Expr, ...]
    left: tuple[Expr, ...]
    right: tuple[Expr, ...]
    macs: tuple[Expr, ...]
    conv: bool = False


@dataclass(frozen=True, slots=True)
class AxisRule:
    """All that one node says.

    `equal` are pairs of expressions with the same slots in the same order; `pins` axes that may not shrink and why;
    `rewrites` the integers to write anew; `frozen_lengths` outputs that state lengths of inputs (Shape) and must
    keep stating the old ones; `copies` axes along which the node repeats what it is given; `joins` axes along which
    activations are added.
    """

    equal: tuple[tuple[Expr, Expr], ...] = ()
    pins: tuple[tuple[Expr, str], ...] = ()
    reduces: tuple[Reduce, ...] = ()
    rewrites: tuple[SizeSite, ...] = ()
    frozen_lengths: tuple[SizeSite, ...] = ()
    copies: tuple[Expr, ...] = ()
    joins: tuple[Ref, ...] = ()
    contractions: tuple[Contraction, ...] = ()

    def __add__(self, other: AxisRule) -> AxisRule:
        """Both say what they say."""
        return AxisRule(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as its rule sees it: operands as tuples of axes (None: absent or unknown), attributes, integers.

    `positions` is the axis that it ranks, or looks up by the outcome of such a ranking.
    """

    op: str
    domain: str
    version: int
    inputs: tuple[tuple[Ref, ...] | None, ...]
    outputs: tuple[tuple[Ref, ...] | None, ...]
    attributes: Mapping[str, Any]
    constants: Sequence[tuple[IntArray, ...] | None]
    probes: int
    weights: tuple[bool, ...] = field(default=())
    positions: Fresh | None = None

    def input(self, index: int) -> tuple[Ref, ...]:
        """The axes of an input that the op requires."""
        axes = self.optional_input(index)
        if axes is None:
            raise CannotAnalyze(f"input {index} has no known rank")
        return axes

    def optional_input(self, index: int) -> tuple[Ref, ...] | None:
        """The axes of an input, None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int = 0) -> tuple[Ref, ...]:
        """The axes of an output that the op always has."""
        axes = self.optional_output(index)
        if axes is None:
            raise CannotAnalyze(f"output {index} has no known rank")
        return axes

    def optional_output(self, index: int) -> tuple[Ref, ...] | None:
        """The axes of an output, None where it is left out."""
        return self.outputs[index] if index < len(self.outputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or the operator's default."""
        return self.attributes.get(name, default)

    def known(self, index: int) -> tuple[IntArray, ...] | None:
        """The integers of an input as every probe saw them, None where they depend on data (or the input is absent)."""
        return self.constants[index] if index < len(self.constants) else None

    def static(self, index: int) -> IntArray | None:
        """The integers of an input where all probes agree."""
        arrays = self.known(index)
        if arrays is None or any(a.shape != arrays[0].shape or not np.array_equal(a, arrays[0]) for a in arrays[1:]):
            return None
        return arrays[0]

    def ints(self, name: str, index: int | None) -> list[int] | None:
        """Integers that older opsets have as an attribute, newer ones as an input; None where absent or not static."""
        if name in self.attributes:
            return [int(v) for v in np.atleast_1d(self.attributes[name])]
        values = None if index is None else self.static(index)
        return None if values is None else [int(v) for v in np.atleast_1d(values)]

    def fresh(self, size: Size, name: str = "_", pin: str = "") -> Fresh:
        """An axis of no operand, pinned with the reason `pin` if one is given."""
        return Fresh(size, name, pin)

    def one(self, ref: Ref) -> bool:
        """Whether an axis is of length one (static)."""
        return all(n == 1 for n in ref.size)


class CannotAnalyze(Exception):
    """A rule cannot tell; the solver pins every axis of the node with this reason."""
