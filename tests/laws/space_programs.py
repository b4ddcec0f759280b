"""Random programs of unification: Dims built from others, pairs of them equated; and ways to look at what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from prunegraph.analysis.axes import Axis
from prunegraph.analysis.slots import Keep, axis_size, kept_positions, slots
from prunegraph.analysis.space import UNIT, CannotUnify, Pin, Space

LARGEST = 96
PIN = Pin("held", "somewhere")


@dataclass(frozen=True)
class Program:
    """How to build Dims, `(form, parts)` or a leaf's size, and which pairs of them to equate."""

    dims: tuple[int | tuple[str, tuple[int, int]], ...]
    equal: tuple[tuple[int, int], ...]
    pinned: tuple[int, ...] = ()


@st.composite
def programs(draw: st.DrawFn, pins: bool = False) -> Program:
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), min_size=2, max_size=6))
    dims: list[Any] = list(sizes)
    for _ in range(draw(st.integers(1, 8))):
        form = draw(st.sampled_from(["product", "concat"]))
        i, j = (draw(st.integers(0, len(dims) - 1)) for _ in range(2))
        size = sizes[i] * sizes[j] if form == "product" else sizes[i] + sizes[j]
        if size <= LARGEST:
            dims.append((form, (i, j)))
            sizes.append(size)
    pairs = [(i, j) for i in range(len(dims)) for j in range(i) if sizes[i] == sizes[j]]
    equal = draw(st.lists(st.sampled_from(pairs), max_size=6)) if pairs else []
    pinned = draw(st.lists(st.integers(0, len(dims) - 1), max_size=2)) if pins else []
    return Program(tuple(dims), tuple(equal), tuple(pinned))


def build(program: Program) -> tuple[Space, list[int]]:
    space, dims = Space(1), []
    for entry in program.dims:
        if isinstance(entry, int):
            dims.append(space.dim((entry,)))
        else:
            make = space.product if entry[0] == "product" else space.concat
            dims.append(make([dims[i] for i in entry[1]]))
    for k in program.pinned:
        space.pin(dims[k], PIN)
    return space, dims


def equate(space: Space, a: int, b: int) -> bool:
    """Whether it worked."""
    try:
        with space.transaction():
            space.equate(a, b)
    except CannotUnify:
        return False
    finally:
        space.commit()
    return True


def resolved(space: Space, dims: Sequence[int]) -> list[Axis]:
    return [space.resolve(dim) for dim in dims]


def text(space: Space, dims: Sequence[int]) -> list[str]:
    """Every Dim as text, leaves numbered as they appear, with their lengths and whether they are pinned."""
    names: dict[int, str] = {}

    def name(dim: int) -> str:
        pinned = "!" if space.pins(dim) else ""
        return names.setdefault(dim, f"d{len(names)}[{space.size(dim)[0]}]{pinned}")

    return [axis.render(name) for axis in resolved(space, dims)]


def canonical(space: Space, dims: Sequence[int]) -> list[list[Any]]:
    """For every position of every Dim the slots of free leaves that it belongs to, and whether it is pinned.

    Text says the same, but sums may be multiplied out or not, and what is pinned has any structure or none.
    """
    number: dict[int, int] = {}
    collected = []
    for axis in resolved(space, dims):
        columns = [(tuple(column), leaf) for leaf, column in slots(axis, space.size, lambda leaf: leaf != UNIT)]
        for _, leaf in sorted(columns):
            if not space.pins(leaf):
                number.setdefault(leaf, len(number))
        owners: list[set[Any]] = [set() for _ in range(axis_size(axis, space.size, 1)[0])]
        for column, leaf in columns:
            for position, slot in enumerate(column):
                if slot >= 0:
                    owners[position].add((number[leaf], int(slot)) if leaf in number else "pinned")
        collected.append([frozenset(owner) for owner in owners])
    return collected


def masks(space: Space, dims: Sequence[int], seed: int) -> dict[int, Keep]:
    """A choice for every leaf."""
    rng = np.random.default_rng(seed)
    leaves = sorted({leaf for dim in dims for leaf in space.leaves(dim)})
    keeps = {}
    for leaf in leaves:
        mask = rng.random(space.size(leaf)[0]) < 0.6
        keeps[leaf] = Keep((), mask, int(mask.sum()))
    return keeps


def kept(space: Space, axis: Axis, keeps: dict[int, Keep]) -> np.ndarray:
    (mask,) = kept_positions([axis], keeps, space.size)
    return np.ones(axis_size(axis, space.size, 1)[0], dtype=bool) if mask is None else mask
