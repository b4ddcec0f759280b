"""Dims: the index sets that axes are made of, in classes that may have a structure.

Every axis of every tensor starts as a Dim of its own.  A Dim is a leaf, a row-major product or a concatenation of Dims.
Slots of size one carry no choice, so they all are the one Dim `UNIT` and vanish from products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prunegraph.analysis.axes import Axis, Size, size_product

UNIT = 0
MAX_TERMS = 4096

PRODUCT, SUM = "·", "+"
Factors = tuple[int, ...]


class CannotUnify(Exception):
    """Two axes that cannot be one; always caught by the solver, which pins both."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Why an axis may not shrink, and the node (or graph input or output) to blame."""

    why: str
    where: str

    def __str__(self) -> str:
        return f"{self.why} ({self.where})"


class Dims:
    """A union-find over Dims whose classes may have a structure; whatever is changed can be undone."""

    def __init__(self, probes: int) -> None:
        self.probes = probes
        self.one: Size = (1,) * probes
        self._parent: list[int] = [0]
        self._size: list[Size] = [self.one]
        self._form: list[tuple[str, Factors] | None] = [None]
        self._pins: list[tuple[Pin, ...]] = [()]
        self._rank: list[int] = [0]
        self._log: list[tuple[list[Any], int, Any]] = []
        self._resolved: dict[int, Axis] = {}

    # ---- building --------------------------------------------------------------------------------------------------

    def dim(self, size: Size) -> int:
        """A new leaf of this size."""
        if size == self.one:
            return UNIT
        self._parent.append(len(self._parent))
        self._size.append(size)
        self._form.append(None)
        self._pins.append(())
        self._rank.append(0)
        return len(self._parent) - 1

    def product(self, factors: Iterable[int]) -> int:
        """The row-major product of Dims."""
        kept = tuple(f for f in factors if self._size[f] != self.one)
        if len(kept) == 1:
            return kept[0]
        return self._compound(PRODUCT, kept, size_product([self._size[f] for f in kept], self.probes))

    def concat(self, terms: Iterable[int]) -> int:
        """The concatenation of Dims."""
        kept = tuple(t for t in terms if any(self._size[t]))
        if len(kept) == 1:
            return kept[0]
        return self._compound(SUM, kept, tuple(sum(self._size[t][p] for t in kept) for p in range(self.probes)))

    def _compound(self, form: str, parts: Factors, size: Size) -> int:
        new = self.dim(size)
        if new != UNIT:
            self._form[new] = (form, parts)
        return new

    # ---- looking ---------------------------------------------------------------------------------------------------

    def find(self, dim: int) -> int:
        """The representative of a Dim's class."""
        parent = self._parent
        root = dim
        while parent[root] != root:
            root = parent[root]
        if not self._log:  # nothing to undo, so that a shortcut stays true
            while parent[dim] != root:
                parent[dim], dim = root, parent[dim]
        return root

    def size(self, dim: int) -> Size:
        """The extent of a Dim, one number per probe."""
        return self._size[dim]

    def is_leaf(self, dim: int) -> bool:
        """Whether a Dim has no structure (yet)."""
        return self._form[self.find(dim)] is None

    def pins(self, leaf: int) -> tuple[Pin, ...]:
        """Why a leaf may not shrink; empty for one that may."""
        return self._pins[self.find(leaf)]

    def leaves(self, dim: int) -> list[int]:
        """The leaves under a Dim, with repetitions, `UNIT` left out."""
        root = self.find(dim)
        form = self._form[root]
        if form is not None:
            return [leaf for part in form[1] for leaf in self.leaves(part)]
        return [root] if root != UNIT else []

    def is_fixed(self, dim: int) -> bool:
        """Whether every slot is pinned: such an axis carries no structure.

        Slots alone (`1 + 1 + 1`) are not pinned: what meets them falls into slots alone too.
        """
        leaves = list(self.leaves(dim))
        return all(self._pins[leaf] for leaf in leaves) and (bool(leaves) or self.find(dim) == UNIT)

    def resolve(self, dim: int) -> Axis:
        """The normal form of a Dim; cached until something is equated."""
        root = self.find(dim)
        if root not in self._resolved:
            self._resolved[root] = self._axis(self._terms((root,)))
        return self._resolved[root]

    def _axis(self, terms: list[Factors]) -> Axis:
        return Axis(tuple(tuple(f if self._form[f] is None else self.resolve_sum(f) for f in term) for term in terms))

    def resolve_sum(self, factor: int) -> Axis:
        """The normal form of a sum that stands under a product."""
        return self._axis(self._terms((factor,)))

    def snapshot(self) -> tuple[tuple[Any, ...], ...]:
        """All that is known of every Dim, oldest first: what is undone leaves its older Dims as they were."""
        return tuple(zip(self._parent, self._size, self._form, self._pins, self._rank, strict=True))

    # ---- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Undo everything equated inside when it ends in a CannotUnify."""
        mark = len(self._log)
        try:
            yield
        except (CannotUnify, RecursionError) as error:
            while len(self._log) > mark:
                store, index, old = self._log.pop()
                store[index] = old
            self._resolved.clear()
            raise (
                error if isinstance(error, CannotUnify) else CannotUnify("the axes have no finite common structure")
            ) from error

    def _set(self, store: list[Any], index: int, value: Any) -> None:
        self._log.append((store, index, store[index]))
        store[index] = value
        self._resolved.clear()

    def commit(self) -> None:
        """Forget how to undo what has been done so far."""
        self._log.clear()

    # ---- pinning ---------------------------------------------------------------------------------------------------

    def pin(self, dim: int, *pins: Pin) -> None:
        """Forbid every slot of a Dim to go; the first reasons given are kept."""
        for leaf in self.leaves(dim):
            old = self._pins[leaf]
            if len(old) < 4:
                self._set(self._pins, leaf, tuple(dict.fromkeys(old + pins))[:4])

    def pin_all(self, dims: Iterable[int], pin: Pin) -> None:
        """Pin several Dims for one reason."""
        for dim in dims:
            self.pin(dim, pin)

    def _first_pins(self, *dims: int) -> tuple[Pin, ...]:
        return next((self._pins[leaf] for dim in dims for leaf in self.leaves(dim) if self._pins[leaf]), ())

    # ---- structure -------------------------------------------------------------------------------------------------

    def _refine(self, leaf: int, form: str, parts: Factors) -> None:
        """Give a leaf a structure; its pins go to the parts."""
        self._set(self._form, leaf, (form, parts))
        if self._pins[leaf]:
            for part in parts:
                self.pin(part, *self._pins[leaf])

    def _terms(self, factors: Factors) -> list[Factors]:
        """The product of `factors` as a sum of products of leaves (and of sums that do not stand first)."""
        done: list[int] = []
        for position, factor in enumerate(factors):
            root = self.find(factor)
            form = self._form[root]
            if form is None:
                if root != UNIT and self._size[root] != self.one:
                    done.append(root)
                continue
            if form[0] == PRODUCT:
                return self._terms((*done, *form[1], *factors[position + 1 :]))
            terms = self._sum_terms(root)
            if len(terms) == 1:
                return self._terms((*done, *terms[0], *factors[position + 1 :]))
            if not done:  # (a + b)·c = a·c + b·c, as long as nothing varies more slowly
                rest = factors[position + 1 :]
                return [term for first in terms for term in self._terms(first + rest)] if rest else terms
            done.append(root)
        return [tuple(done)]

    def _sum_terms(self, root: int) -> list[Factors]:
        form = self._form[root]
        assert form is not None
        terms = [term for part in form[1] for term in self._terms((part,))]
        if len(terms) > MAX_TERMS:
            raise CannotUnify(f"an axis would fall into more than {MAX_TERMS} parts")
        return terms

    def _term_size(self, term: Factors) -> Size:
        return size_product([self._size[f] for f in term], self.probes)
