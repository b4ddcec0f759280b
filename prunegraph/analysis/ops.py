"""What an op is, beside what its rule says of axes: traits that passes ask for instead of naming ops.

A trait stands where the rule of its op is registered: `@axis_rule("LayerNormalization", norm=Norm(centred=True))`.  An
op that has no rule states its traits with `declare`.  What nothing is known of has no trait, so a pass that needs one
refuses or pins it and never takes it for another op.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class Traits:
    """What is known of an op.

    Attributes:
        norm: How it normalizes, None where it does not.
        averages: It gives the mean over the axes that it reduces, and nothing else.
    """

    norm: Norm | None = None
    averages: bool = False


NO_TRAITS = Traits()
TRAITS: dict[tuple[str, str], Traits] = {}
"""(domain, op type) -> traits; "" is the domain of ai.onnx."""


def declare(*ops: str, domain: str = "", traits: Traits) -> None:
    """State the traits of ops.

    Raises:
        ValueError: the traits of one of them have been stated already.
    """
    for op in ops:
        if (domain, op) in TRAITS:
            raise ValueError(f"the traits of {op} of domain {domain!r} are stated twice")
        TRAITS[domain, op] = traits


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
