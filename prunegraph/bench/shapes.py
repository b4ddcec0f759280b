"""Shapes of inputs that were asked for, as sizes of the model's dynamic dims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from prunegraph.errors import UsageError
from prunegraph.runtime.inputs import InputSpec

Shapes = Mapping[str, tuple[int, ...]]
"""A shape by the name of an input; inputs that share a dim follow."""


def parse_shapes(given: Iterable[str]) -> list[Shapes]:
    """What is to be timed, one entry a size.

    >>> parse_shapes(["input_ids=1x128,8x128"])
    [{'input_ids': (1, 128)}, {'input_ids': (8, 128)}]
    >>> parse_shapes(["image=1x3x224x224,1x3x320x320", "scale=1"])[1]
    {'image': (1, 3, 320, 320), 'scale': (1,)}

    Raises:
        UsageError: something is no NAME=SHAPE, or inputs have different numbers of shapes.
    """
    listed: dict[str, list[tuple[int, ...]]] = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        if not name or not re.fullmatch(r"\d+(x\d+)*(,\d+(x\d+)*)*", sizes):
            raise UsageError(f"--shape: {text!r} is no NAME=SHAPE", hint="for example --shape input_ids=1x128,8x128")
        listed[name] = [tuple(map(int, shape.split("x"))) for shape in sizes.split(",")]
    count = max((len(shapes) for shapes in listed.values()), default=0)
    for name, shapes in listed.items():
        if len(shapes) not in (1, count):
            raise UsageError(f"--shape: {name} has {len(shapes)} shapes, another input {count}", hint="give as many")
    return [{name: shapes[k if len(shapes) > 1 else 0] for name, shapes in listed.items()} for k in range(count)]


def sizes_of(specs: Sequence[InputSpec], shapes: Shapes) -> dict[str, int]:
    """The size of every dynamic dim that these shapes tell.

    Raises:
        UsageError: there is no such input, a shape has another number of axes or another static size, or a dim would
            have two sizes.
    """
    by_name = {spec.name: spec for spec in specs}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in by_name:
            raise UsageError(f"there is no input {name!r}", hint=f"the inputs are: {', '.join(by_name)}")
        dims = by_name[name].dims
        hint = f"{name} is [{', '.join(map(str, dims))}]"
        if len(dims) != len(shape):
            raise UsageError(f"{name} has {len(dims)} axes, not {len(shape)}", hint=hint)
        for dim, size in zip(dims, shape, strict=True):
            stated = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
            if stated != size:
                raise UsageError(f"{name}: {dim} cannot be {size}, it is {stated}", hint=hint)
    return sizes
