"""Atoms: the pieces of axes that a chain of Reshape and Transpose never cuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prunegraph.analysis.axes import Size

AtomLayout = tuple[tuple[int, ...], ...]
"""Of every axis the atoms that it consists of, slowest first; none for an axis of length 1."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node: a Transpose by `order`, or a Reshape if there is none, and the layout that it makes."""

    layout: AtomLayout
    order: tuple[int, ...] | None = None


class Atoms:
    """Atoms by number, each with its length in every probe."""

    def __init__(self, probes: int) -> None:
        """Begin without atoms, at so many probes."""
        self._probes = probes
        self._sizes: list[Size] = []
        self._halves: dict[int, tuple[int, int]] = {}

    def new(self, shape: Sequence[Size]) -> AtomLayout:
        """A layout of fresh axes."""
        return tuple(() if set(size) == {1} else (self._add(size),) for size in shape)

    def regroup(self, layout: AtomLayout, shape: Sequence[Size]) -> AtomLayout | None:
        """The same numbers in the same order under another shape; None where no atoms fit."""
        waiting = self._mended(_flat(self.settled(layout)))[::-1]
        axes = []
        for length in shape:
            axis, missing = [], length
            while set(missing) != {1}:
                if not waiting:
                    return None
                atom = waiting.pop()
                if _divides(size := self._sizes[atom], missing):
                    axis.append(atom)
                    missing = _over(missing, size)
                elif _divides(missing, size):
                    halves = self._add(missing), self._add(_over(size, missing))
                    self._halves[atom] = halves
                    axis.append(halves[0])
                    waiting.append(halves[1])
                    break
                else:
                    return None
            axes.append(tuple(axis))
        return None if waiting else tuple(axes)

    def settled(self, layout: AtomLayout) -> AtomLayout:
        """A layout in atoms that nothing has cut so far."""
        return tuple(tuple(piece for atom in axis for piece in self._pieces(atom)) for axis in layout)

    def size(self, axis: Sequence[int]) -> Size:
        """How long an axis is in every probe."""
        total: Size = (1,) * self._probes
        for atom in axis:
            total = tuple(a * b for a, b in zip(total, self._sizes[atom], strict=True))
        return total

    def _mended(self, atoms: Sequence[int]) -> list[int]:
        """Halves that lie beside each other again are the whole that they were."""
        whole = {halves: atom for atom, halves in self._halves.items()}
        mended: list[int] = []
        for atom in atoms:
            mended.append(atom)
            while len(mended) > 1 and (mended[-2], mended[-1]) in whole:
                atom = whole[mended[-2], mended[-1]]
                del self._halves[atom]
                mended[-2:] = [atom]
        return mended

    def _add(self, size: Size) -> int:
        self._sizes.append(size)
        return len(self._sizes) - 1

    def _pieces(self, atom: int) -> Iterator[int]:
        if atom in self._halves:
            for half in self._halves[atom]:
                yield from self._pieces(half)
        else:
            yield atom


def _divides(a: Size, b: Size) -> bool:
    return all(y % x == 0 for x, y in zip(a, b, strict=True))


def _over(a: Size, b: Size) -> Size:
    return tuple(x // y for x, y in zip(a, b, strict=True))


# ---- ways from one layout to another -------------------------------------------------------------------------------


def ways(start: AtomLayout, end: AtomLayout) -> Iterator[list[Step]]:
    """Every way from one layout of some atoms to another with at most one Transpose, short ones first.

    >>> [len(way) for way in ways(((0,), (1, 2)), ((0,), (1,), (2,)))]
    [1, 3]
    >>> next(ways(((0,), (1,), (2,)), ((1,), (0, 2))))
    [Step(layout=((1,), (0,), (2,)), order=(1, 0, 2)), Step(layout=((1,), (0, 2)), order=None)]
    """
    if start == end:
        yield []
        return
    if _flat(start) == _flat(end):
        yield [Step(end)]
    elif sorted(start) == sorted(end):
        yield [_transpose(start, end)]
    else:
        if (middle := _in_order(end, start)) is not None:
            yield [Step(middle), _transpose(middle, end)]
        if (middle := _in_order(start, end)) is not None:
            yield [_transpose(start, middle), Step(end)]
    runs = tuple((atom,) for atom in _flat(start))
    turned = tuple((atom,) for atom in _flat(end))
    yield [Step(runs), _transpose(runs, turned), Step(end)]


def _in_order(layout: AtomLayout, model: AtomLayout) -> AtomLayout | None:
    """The axes of a layout in the order that another layout has their atoms in; None if it has them apart."""
    place = {atom: k for k, atom in enumerate(_flat(model))}
    axes = sorted(layout, key=lambda axis: place[axis[0]] if axis else -1)
    return tuple(axes) if _flat(axes) == _flat(model) else None


def _transpose(start: AtomLayout, end: AtomLayout) -> Step:
    free = list(range(len(start)))
    order = []
    for axis in end:
        source = next(k for k in free if start[k] == axis)
        free.remove(source)
        order.append(source)
    return Step(end, tuple(order))


def _flat(layout: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(atom for axis in layout for atom in axis)
