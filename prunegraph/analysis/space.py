"""The space of Dims: unification with refinement, undone as a whole when it fails.

`equate` makes two Dims one, and refines where their structures differ: a flat `c` that meets `h·d` becomes `h·d`
everywhere at once.
"""

from __future__ import annotations

from prunegraph.analysis.axes import Size
from prunegraph.analysis.dims import MAX_TERMS, PRODUCT, SUM, UNIT, CannotUnify, Dims, Factors, Pin

__all__ = ["UNIT", "CannotUnify", "Pin", "Space"]


class Space(Dims):
    """Dims that can be made one."""

    def equate(self, a: int, b: int) -> None:
        """Make two Dims the same, refining both as needed.

        Raises:
            CannotUnify: the sizes differ, or a cut would have to pass through the inside of a product.
        """
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        if self._size[a] != self._size[b]:
            raise CannotUnify(f"sizes differ: {self._size[a]} and {self._size[b]}")
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

    def _absorb(self, x: Factors, y: Factors) -> None:
        """A wholly pinned axis absorbs whatever it meets: the other is pinned too, and no structure is reconciled."""
        pins = self._first_pins(*x) or self._first_pins(*y)
        for dim in (*x, *y):
            self.pin(dim, *pins)

    def _align_sums(self, left: list[Factors], right: list[Factors]) -> None:
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
                raise CannotUnify("the parts of two axes do not line up")
        if left or right:
            raise CannotUnify("one axis has more parts than the other")

    def _pop(self, stack: list[Factors]) -> Factors:
        """The next term, refined by all that has been learnt since it was put there."""
        terms = self._terms(stack.pop())
        stack += terms[:0:-1]
        if len(stack) > MAX_TERMS:
            raise CannotUnify(f"an axis would fall into more than {MAX_TERMS} parts")
        return terms[0]

    def _cut(self, term: Factors, at: Size) -> tuple[Factors, Factors]:
        """Cut a product in two, which can only be done along its first factor."""
        first, rest = term[0], term[1:]
        inner = self._term_size(rest)
        if any(n % i for n, i in zip(at, inner, strict=True)) or self._form[first] is not None:
            raise CannotUnify("a cut passes through the inside of a product")
        head = self.dim(tuple(n // i for n, i in zip(at, inner, strict=True)))
        tail = self.dim(tuple(n - h for n, h in zip(self._size[first], self._size[head], strict=True)))
        self._refine(first, SUM, (head, tail))
        return (head, *rest), (tail, *rest)

    def _align_products(self, x: Factors, y: Factors) -> None:
        """Equate two products of the same extent, factor by factor from the slowest on."""
        if len(x) == len(y) == 1 and self.is_leaf(x[0]) and self.is_leaf(y[0]):
            return self.equate(x[0], y[0])
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
                raise CannotUnify("two products have no common factors")

    def _equate_factors(self, a: int, b: int) -> None:
        if self._form[a] is not None and self._form[b] is not None and a != b:
            self._align_sums(self._sum_terms(a), self._sum_terms(b))
        else:
            self.equate(a, b)

    def _divides(self, small: int, large: int) -> bool:
        return all(s and n % s == 0 for s, n in zip(self._size[small], self._size[large], strict=True))

    def _split(self, large: int, small: int) -> Factors:
        """Refine a leaf into `outer·inner`, the outer one as long as `small`."""
        if self._form[large] is not None:
            raise CannotUnify("a sum stands where a product is needed")
        outer = self.dim(self._size[small])
        inner = self.dim(tuple(n // s for n, s in zip(self._size[large], self._size[small], strict=True)))
        self._refine(large, PRODUCT, (outer, inner))
        return outer, inner
