"""Helpers that a translated module calls besides the functions of ops: outputs, constants, ops with blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunegraph.torch_twin.registry import Function


class Taker(Protocol):
    """A block: a module that knows what it takes from outside."""

    takes: tuple[Any, ...]


def output_of(result: Any, index: int) -> Tensor:
    """One output of a node."""
    value: Tensor = result[index] if isinstance(result, tuple) else result
    return value


def beside(x: Tensor, other: Tensor) -> Tensor:
    """What was computed on the CPU (lengths, positions), on the device of another operand."""
    return x.to(other.device)


class Constant(nn.Module):  # type: ignore[misc]
    """A constant that is computed with on the CPU wherever the weights are: lengths live there."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = [value]  # in a list: neither a buffer nor moved

    def forward(self) -> Tensor:
        """The constant, wherever the module is."""
        return self.value[0]


class ModuleCall(nn.Module):  # type: ignore[misc]
    """An op that must know whether the module trains, or that has blocks.

    Args:
        function: Its torch function.
        takes_training: Whether it is told that the module trains.
        operands: How many of the arguments are its own; the others are what its blocks take from outside.
        blocks: Its blocks by the names of their attributes.
    """

    def __init__(
        self, function: Function, takes_training: bool, operands: int, blocks: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.function = function
        self.takes_training = takes_training
        self.operands = operands
        self.blocks = nn.ModuleDict({f"{name}_": block for name, block in blocks.items()})
        self.takes = [len(getattr(block, "takes", ())) for block in blocks.values()]

    def forward(self, *args: Any, **attributes: Any) -> Any:
        """Call the function of the op, with its blocks bound to what they take from outside."""
        own, taken = args[: self.operands], list(args[self.operands :])
        for (name, block), count in zip(self.blocks.items(), self.takes, strict=True):
            attributes[name.removesuffix("_")] = _bound(block, tuple(taken[:count]))
            del taken[:count]
        if self.takes_training:
            attributes["training"] = self.training
        return self.function(*own, **attributes)


def _bound(block: nn.Module, taken: tuple[Tensor, ...]) -> Function:
    def run(*inputs: Tensor) -> tuple[torch.Tensor, ...]:
        outputs: tuple[Tensor, ...] = block(*inputs, *taken)
        return outputs

    return run
