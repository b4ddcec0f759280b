"""Default dynamic shapes for torch export: which axes of a module's inputs vary, and what to try where they do not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunegraph.errors import UsageError

if TYPE_CHECKING:
    import torch

BATCH, SEQUENCE = "batch", "sequence"

AxisNames = dict[int, str]
"""The axes of one tensor that vary, by number, with their names."""


@dataclass(frozen=True, slots=True)
class ExampleCall:
    """Arguments of `forward`, as they are handed to it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example_inputs: Any) -> ExampleCall:
        """Arguments by keyword for a mapping, by position for anything else; one alone needs no tuple.

        A tensor that is given twice is copied: a trace takes both for one input, and ignores the other.
        """
        given: set[int] = set()
        if isinstance(example_inputs, Mapping):
            return cls((), {name: _unshared(value, given) for name, value in example_inputs.items()})
        args = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
        return cls(tuple(_unshared(value, given) for value in args), {})

    def named(self, forward: Callable[..., Any]) -> dict[str, Any]:
        """The arguments by the names of the parameters they are bound to; `*args` is one of them, a tuple.

        Raises:
            UsageError: `forward` does not take them.
        """
        try:
            return dict(inspect.signature(forward).bind(*self.args, **self.kwargs).arguments)
        except TypeError as error:
            hint = f"forward{inspect.signature(forward)} is what the module takes"
            raise UsageError(f"the example inputs do not fit the module: {error}", hint=hint) from None


def _unshared(value: Any, given: set[int]) -> Any:
    """The argument with a copy of every tensor that was given before."""
    import torch

    if isinstance(value, torch.Tensor):
        if id(value) in given:
            return value.clone()
        given.add(id(value))
        return value
    if type(value) in (tuple, list):
        return type(value)(_unshared(each, given) for each in value)
    if type(value) is dict:
        return {name: _unshared(each, given) for name, each in value.items()}
    return value


def default_axes(named: Mapping[str, Any]) -> dict[str, Any]:
    """Axis 0 is the batch where it is as long as the first input's; axis 1 of token ids and masks is a sequence.

    Args:
        named: The arguments by parameter.

    Returns:
        The axes of each tensor, in the structure of `named`; None for what is no tensor.
    """
    batch: list[int] = []
    lengths: list[int] = []

    def axes(path: str, tensor: torch.Tensor) -> AxisNames:
        names: AxisNames = {}
        if tensor.ndim:
            batch.append(tensor.shape[0])
            if tensor.shape[0] == batch[0]:
                names[0] = BATCH
        if tensor.ndim == 2 and not (tensor.is_floating_point() or tensor.is_complex()):
            lengths.append(tensor.shape[1])
            names[1] = SEQUENCE if tensor.shape[1] == lengths[0] else f"{path}_{SEQUENCE}"
        return names

    return {name: _mapped(name, value, axes) for name, value in named.items()}


def widened(call: ExampleCall, forward: Callable[..., Any], axes: Any) -> ExampleCall:
    """The call with every axis that is to vary at least two long: a trace takes a length of one for a broadcast.

    Keywords get the order of the parameters, which is that of the graph's inputs.

    Args:
        call: The arguments.
        forward: What they are for.
        axes: By parameter, or one after the other, the axes that vary.
    """
    bound = inspect.signature(forward).bind(*call.args, **call.kwargs)
    keywords: dict[str, Any] = {}
    by_name = axes if isinstance(axes, Mapping) else dict(zip(bound.arguments, axes, strict=False))
    for name, value in list(bound.arguments.items()):
        wide = bound.arguments[name] = _widened(value, by_name.get(name))
        if name in call.kwargs:
            keywords[name] = wide
        elif bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            keywords |= wide
    return ExampleCall(tuple(bound.args[: len(call.args)]), keywords)


def tensor_axes(value: Any, axes: Any) -> Iterator[AxisNames]:
    """The axes of each tensor in a structure of arguments, one after the other, as `default_axes` gives them."""
    import torch

    if isinstance(value, torch.Tensor):
        yield axes or {}
    elif isinstance(value, Mapping) and isinstance(axes, Mapping):
        for key, each in value.items():
            yield from tensor_axes(each, axes.get(key))
    elif isinstance(value, (tuple, list)) and isinstance(axes, tuple):
        for each, its in zip(value, axes, strict=True):
            yield from tensor_axes(each, its)


def fallbacks(axes: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """These axes, then fewer of them; with each what is fixed at the example's length ("" at first).

    Where a trace allows none of the wished axes, the last try has none.
    """
    names = set(_names(axes))
    yield axes, ""
    if BATCH in names and len(names) > 1:
        yield _without(axes, {BATCH}), "the batch"
        yield _without(axes, names - {BATCH}), "the sequence"
    if names:
        yield _without(axes, names), "the batch" if names == {BATCH} else "every axis"


def _mapped(path: str, value: Any, axes: Callable[[str, torch.Tensor], AxisNames]) -> Any:
    """The structure of tuples, lists and mappings kept, tensors replaced by their axes and everything else by None."""
    import torch

    if isinstance(value, torch.Tensor):
        return axes(path, value)
    if isinstance(value, Mapping):
        return {key: _mapped(str(key), each, axes) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_mapped(f"{path}_{index}", each, axes) for index, each in enumerate(value))
    return None


def _widened(value: Any, axes: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        for axis, dim in axes.items() if isinstance(axes, Mapping) else enumerate(axes or ()):
            if _varies(dim) and value.shape[axis] == 1:
                value = value.repeat_interleave(2, dim=axis)
    elif isinstance(value, Mapping) and isinstance(axes, Mapping):
        return {key: _widened(each, axes.get(key)) for key, each in value.items()}
    elif isinstance(value, (tuple, list)) and isinstance(axes, (tuple, list)):
        parts = [_widened(each, its) for each, its in zip(value, axes, strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _varies(dim: Any) -> bool:
    """Whether this stands for a varying axis: a name, a `Dim`, or a hint other than `Dim.STATIC`."""
    return dim is not None and not isinstance(dim, int) and "STATIC" not in repr(dim)


def _names(axes: Any) -> Iterator[str]:
    if isinstance(axes, str):
        yield axes
    elif isinstance(axes, dict):
        for each in axes.values():
            yield from _names(each)
    elif isinstance(axes, tuple):
        for each in axes:
            yield from _names(each)


def _without(axes: Any, names: set[str]) -> Any:
    if isinstance(axes, dict):
        return {
            key: _without(each, names) for key, each in axes.items() if not (isinstance(each, str) and each in names)
        }
    if isinstance(axes, tuple):
        return tuple(_without(each, names) for each in axes)
    return axes
