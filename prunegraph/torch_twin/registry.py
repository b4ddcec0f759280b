"""Register torch functions for ONNX ops: the table, and what the signature of a function says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

from torch import Tensor

MICROSOFT = "com.microsoft"

StatedLengths: TypeAlias = Tensor | Sequence[int]
"""Marks an operand that states lengths, axes or positions: a list where it is constant, else a tensor on the CPU."""

Function = Callable[..., Any]
AnyFunction = TypeVar("AnyFunction", bound=Function)

CONTEXT = ("op", "outputs", "training", "version")
"""Keyword parameters that are no attributes: a function that has them is told them."""


@dataclass(frozen=True, slots=True)
class TorchOp:
    """A function, and what its signature says.

    Attributes:
        function: From operands and attributes to one tensor, or a tuple of them.
        names: All parameters that can be given by keyword.
        lengths: The numbers of the operands that state lengths.
        context: Which of `CONTEXT` it wants.
        single: Whether it returns one tensor.
    """

    function: Function
    names: frozenset[str]
    lengths: frozenset[int]
    context: frozenset[str]
    single: bool

    @staticmethod
    def of(function: Function) -> TorchOp:
        """Read the signature of a function."""
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        names = frozenset(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        names |= frozenset(name for p in parameters if p.kind is p.VAR_KEYWORD for name in _shared(function, p.name))
        lengths = frozenset(k for k, p in enumerate(parameters) if "StatedLengths" in str(p.annotation))
        context = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in CONTEXT)
        return TorchOp(function, names, lengths, context, signature.return_annotation in ("Tensor", Tensor))


def _shared(function: Function, parameter: str) -> list[str]:
    """The attributes that a function takes as `**attributes: Unpack[Attributes]`."""
    (attributes,) = get_args(get_type_hints(function)[parameter])
    return list(attributes.__annotations__)


TORCH_OPS: dict[tuple[str, str], TorchOp] = {}
"""(domain, op type) -> function; "" is the domain of ai.onnx."""


def torch_op(*ops: str, domain: str = "") -> Callable[[AnyFunction], AnyFunction]:
    """Register a pure function for one or several ops; the package's docstring says how to write one."""

    def register(function: AnyFunction) -> AnyFunction:
        for op in ops:
            key = (domain, op)
            if key in TORCH_OPS:
                raise ValueError(f"{op} of domain {domain!r} has two torch functions")
            TORCH_OPS[key] = TorchOp.of(function)
        return function

    return register


def torch_function(op: str, function: Function) -> None:
    """Register a function of torch's own that takes the operands of an op as they are and returns one tensor."""
    if ("", op) in TORCH_OPS:
        raise ValueError(f"{op} has two torch functions")
    TORCH_OPS["", op] = TorchOp(function, frozenset(), frozenset(), frozenset(), single=True)


def torch_op_for(domain: str, op: str) -> TorchOp | None:
    """The function of an op, None where there is none."""
    return TORCH_OPS.get(("" if domain == "ai.onnx" else domain, op))


def integers(values: StatedLengths | int) -> list[int]:
    """The numbers of an operand or an attribute."""
    if isinstance(values, int):
        return [values]
    return [int(n) for n in (values.reshape(-1).tolist() if isinstance(values, Tensor) else values)]
