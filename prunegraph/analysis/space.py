"""The space of Dims: unification with refinement, undone as a whole when it fails.

Every axis of every tensor starts as a Dim of its own.  `equate` makes two Dims one, and refines where their
structures differ: a flat `c` that meets `h·d` becomes `h·d` everywhere at once.  A Dim is a leaf, a row-major product
or a concatenation of Dims. Slots of size one carry no choice, so they all are the one Dim `UNIT` and vanish from
products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prunegraph.analysis.axes import Axis, Size, size_product

UNIT = 0
MAX_TERMS = 4096

_PRODUCT, _SUM = "·", "+"
_Factors = tuple[int, ...]


class Clash(Exception):
    """Two axes that cannot be one; always caught by the solver, which pins both."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Why an axis may not shrink, and the node (or graph input or output) to blame."""

    why: str
    where: str

    def __str__(self) -> str:
        return f"{self.why} ({self.where})"


class Space:
    """A union-find over Dims whose classes may have a structure."""

    def __init__(self, probes: int) -> None:
        self.probes = probes
        self.one: Size = (1,) * probes
        self._parent: list[int] = [0]
        self._size: list[Size] = [self.one]
        self._form: list[tuple[str, _Factors] | None] = [None]
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
        return self._compound(_PRODUCT, kept, size_product([self._size[f] for f in kept], self.probes))

    def concat(self, terms: Iterable[int]) -> int:
        """The concatenation of Dims."""
        kept = tuple(t for t in terms if any(self._size[t]))
        if len(kept) == 1:
            return kept[0]
        return self._compound(_SUM, kept, tuple(sum(self._size[t][p] for t in kept) for p in range(self.probes)))

    def _compound(self, form: str, parts: _Factors, size: Size) -> int:
        new = self.dim(size)
        if new != UNIT:
            self._form[new] = (form, parts)
        return new

    # ---- looking ---------------------------------------------------------------------------------------------------

    def find(self, dim: int) -> int:
        """The representative of a Dim's class."""
        parent = self._parent
        while parent[dim] != dim:
            dim = parent[dim]
        return dim

    def size(self, dim: int) -> Size:
        """The extent of a Dim, one number per probe."""
        return self._size[dim]

    def is_leaf(self, dim: int) -> bool:
        """Whether a Dim has no structure (yet)."""
        return self._form[self.find(dim)] is None

    def pins(self, leaf: int) -> tuple[Pin, ...]:
        """Why a leaf may not shrink; empty for one that may."""
        return self._pins[self.find(leaf)]

    def leaves(self, dim: int) -> Iterator[int]:
        """The leaves under a Dim, with repetitions, `UNIT` left out."""
        root = self.find(dim)
        form = self._form[root]
        if form is not None:
            for part in form[1]:
                yield from self.leaves(part)
        elif root != UNIT:
            yield root

    def is_fixed(self, dim: int) -> bool:
        """Whether every slot is pinned: such an axis carries no structure."""
        return all(self._pins[leaf] for leaf in self.leaves(dim))

    def resolve(self, dim: int) -> Axis:
        """The normal form of a Dim.  Valid once nothing is equated any more; cached."""
        root = self.find(dim)
        if root not in self._resolved:
            self._resolved[root] = self._axis(self._terms((root,)))
        return self._resolved[root]

    def _axis(self, terms: list[_Factors]) -> Axis:
        return Axis(tuple(tuple(f if self._form[f] is None else self.resolve_sum(f) for f in term) for term in terms))

    def resolve_sum(self, factor: int) -> Axis:
        """The normal form of a sum that stands under a product."""
        return self._axis(self._terms((factor,)))

    # ---- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Undo everything equated inside when it ends in a Clash."""
        mark = len(self._log)
        try:
            yield
        except (Clash, RecursionError) as error:
            while len(self._log) > mark:
                store, index, old = self._log.pop()
                store[index] = old
            raise error if isinstance(error, Clash) else Clash("the axes have no finite common structure") from error

    def _set(self, store: list[Any], index: int, value: Any) -> None:
        self._log.append((store, index, store[index]))
        store[index] = value

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

    def _absorb(self, x: _Factors, y: _Factors) -> None:
        """A wholly pinned axis absorbs whatever it meets: the other is pinned too, and no structure is reconciled."""
        pins = self._first_pins(*x) or self._first_pins(*y)
        for dim in (*x, *y):
            self.pin(dim, *pins)

    # ---- unification -----------------------------------------------------------------------------------------------

    def equate(self, a: int, b: int) -> None:
        """Make two Dims the same, refining both as needed.

        Raises:
            Clash: the sizes differ, or a cut would have to pass through the inside of a product.
        """
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        if self._size[a] != self._size[b]:
            raise Clash(f"sizes differ: {self._size[a]} and {self._size[b]}")
        if self._form[a] is None or self._form[b] is None:
            self._join_leaf(a, b)
        elif self.is_fixed(a) or self.is_fixed(b):
            self._absorb((a,), (b,))
        else:
            self._align_sums([(a,)], [(b,)])
            a, b = self.find(a), self.find(b)
            if a != b and self._form[a] is not None:
                self._set(self._parent, a, b)

    def _join_leaf(self, a: int, b: int) -> None:
        if self._form[a] is not None or (self._form[b] is None and self._rank[a] > self._rank[b]):
            a, b = b, a
        if self._rank[a] == self._rank[b]:
            self._set(self._rank, b, self._rank[b] + 1)
        pins_a = self._pins[a]
        self._set(self._parent, a, b)
        if pins_a:
            self.pin(b, *pins_a)

    def _refine(self, leaf: int, form: str, parts: _Factors) -> None:
        """Give a leaf a structure; its pins go to the parts."""
        self._set(self._form, leaf, (form, parts))
        if self._pins[leaf]:
            for part in parts:
                self.pin(part, *self._pins[leaf])

    def _terms(self, factors: _Factors) -> list[_Factors]:
        """The product of `factors` as a sum of products of leaves (and of sums that do not stand first)."""
        done: list[int] = []
        for position, factor in enumerate(factors):
            root = self.find(factor)
            form = self._form[root]
            if form is None:
                if root != UNIT and self._size[root] != self.one:
                    done.append(root)
                continue
            if form[0] == _PRODUCT:
                return self._terms((*done, *form[1], *factors[position + 1 :]))
            terms = self._sum_terms(root)
            if len(terms) == 1:
                return self._terms((*done, *terms[0], *factors[position + 1 :]))
            if not done:  # (a + b)·c = a·c + b·c, as long as nothing varies more slowly
                rest = factors[position + 1 :]
                return [term for first in terms for term in self._terms(first + rest)] if rest else terms
            done.append(root)
        return [tuple(done)]

    def _sum_terms(self, root: int) -> list[_Factors]:
        form = self._form[root]
        assert form is not None
        terms = [term for part in form[1] for term in self._terms((part,))]
        if len(terms) > MAX_TERMS:
            raise Clash(f"an axis would fall into more than {MAX_TERMS} parts")
        return terms

    def _term_size(self, term: _Factors) -> Size:
        return size_product([self._size[f] for f in term], self.probes)

    def _align_sums(self, left: list[_Factors], right: list[_Factors]) -> None:
        """Equate two sums of products, cutting the longer term wherever the boundaries differ."""
        left, right = left[::-1], right[::-1]
        while left and right:
            x, y = self._pop(left), self._pop(right)
            size_x, size_y = self._term_size(x), self._term_size(y)
            if size_x == size_y:
                self._align_products(x, y)
            elif all(p > q for p, q in zip(size_x, size_y, strict=True)):
                head, tail = self._cut(x, size_y)
                left += [tail, head]
                right.append(y)
            elif all(p < q for p, q in zip(size_x, size_y, strict=True)):
                head, tail = self._cut(y, size_x)
                right += [tail, head]
                left.append(x)
            else:
                raise Clash("the parts of two axes do not line up")
        if left or right:
            raise Clash("one axis has more parts than the other")

    def _pop(self, stack: list[_Factors]) -> _Factors:
        """The next term, refined by all that has been learnt since it was put there."""
        terms = self._terms(stack.pop())
        stack += terms[:0:-1]
        if len(stack) > MAX_TERMS:
            raise Clash(f"an axis would fall into more than {MAX_TERMS} parts")
        return terms[0]

    def _cut(self, term: _Factors, at: Size) -> tuple[_Factors, _Factors]:
        """Cut a product in two, which can only be done along its first factor."""
        first, rest = term[0], term[1:]
        inner = self._term_size(rest)
        if any(n % i for n, i in zip(at, inner, strict=True)) or self._form[first] is not None:
            raise Clash("a cut passes through the inside of a product")
        head = self.dim(tuple(n // i for n, i in zip(at, inner, strict=True)))
        tail = self.dim(tuple(n - h for n, h in zip(self._size[first], self._size[head], strict=True)))
        self._refine(first, _SUM, (head, tail))
        return (head, *rest), (tail, *rest)

    def _align_products(self, x: _Factors, y: _Factors) -> None:
        """Equate two products of the same extent, factor by factor from the slowest on."""
        if all(map(self.is_fixed, x)) or all(map(self.is_fixed, y)):
            return self._absorb(x, y)
        while True:
            terms_x, terms_y = self._terms(x), self._terms(y)
            if len(terms_x) > 1 or len(terms_y) > 1:
                return self._align_sums(terms_x, terms_y)
            x, y = terms_x[0], terms_y[0]
            if len(x) == 1 and len(y) == 1:
                return self._equate_factors(x[0], y[0])
            if not x or not y:
                return None
            if len(x) == 1 or len(y) == 1:
                single, other = (x, y) if len(x) == 1 else (y, x)
                return self.equate(single[0], self.product(other))
            a, b = x[0], y[0]
            if self._size[a] == self._size[b]:
                self._equate_factors(a, b)
                x, y = x[1:], y[1:]
            elif self._divides(b, a):
                x = self._split(a, b) + x[1:]
            elif self._divides(a, b):
                y = self._split(b, a) + y[1:]
            else:
                raise Clash("two products have no common factors")

    def _equate_factors(self, a: int, b: int) -> None:
        if self._form[a] is not None and self._form[b] is not None and a != b:
            self._align_sums(self._sum_terms(a), self._sum_terms(b))
        else:
            self.equate(a, b)

    def _divides(self, small: int, large: int) -> bool:
        return all(s and n % s == 0 for s, n in zip(self._size[small], self._size[large], strict=True))

    def _split(self, large: int, small: int) -> _Factors:
        """Refine a leaf into `outer·inner`, the outer one as long as `small`."""
        if self._form[large] is not None:
            raise Clash("a sum stands where a product is needed")
        outer = self.dim(self._size[small])
        inner = self.dim(tuple(n // s for n, s in zip(self._size[large], self._size[small], strict=True)))
        self._refine(large, _PRODUCT, (outer, inner))
        return outer, inner
