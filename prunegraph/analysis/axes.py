"""The small language in which ops speak of axes, and the form in which the solver answers.

A rule relates *expressions*: an axis of an operand (`Ref`), an axis no tensor has by itself (`Fresh`), row-major
products of axes (`Prod`: what Reshape merges) and concatenations of axes (`Sum`: what Concat, Split and Slice are
about).  Equality of two expressions is the only relation there is.  The solver answers with an `Axis`: a sum of
products of Dims, printed like einops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Size = tuple[int, ...]
"""An extent as every probe saw it: `(768, 768)` is static, `(11, 23)` is dynamic."""


def size_product(sizes: Iterator[Size] | list[Size] | tuple[Size, ...], probes: int) -> Size:
    """Multiply extents probe by probe; the empty product is one."""
    total = (1,) * probes
    for size in sizes:
        total = tuple(a * b for a, b in zip(total, size, strict=True))
    return total


@dataclass(frozen=True, slots=True)
class Ref:
    """Axis `axis` of input (`x`) or output (`y`) number `index` of the node that the rule speaks of."""

    side: str
    index: int
    axis: int
    size: Size

    def __str__(self) -> str:
        return f"{self.side}{self.index}.{self.axis}"


Axes: TypeAlias = tuple[Ref, ...]
"""All axes of one operand or output."""


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """An axis that no operand has by itself: what a Slice leaves out, the groups of a convolution."""

    size: Size
    name: str = "_"
    pin: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Prod:
    """Row-major product: the first factor varies slowest."""

    factors: tuple[Expr, ...]

    def __str__(self) -> str:
        return "·".join(f"({f})" if isinstance(f, Sum) else str(f) for f in self.factors) or "1"


@dataclass(frozen=True, slots=True)
class Sum:
    """Concatenation: the slots of the first term come first."""

    terms: tuple[Expr, ...]

    def __str__(self) -> str:
        return " + ".join(str(t) for t in self.terms) or "0"


Expr = Ref | Fresh | Prod | Sum


def expr_size(expr: Expr, probes: int) -> Size:
    """The extent of an expression, one number per probe."""
    match expr:
        case Ref() | Fresh():
            return expr.size
        case Prod(factors):
            return size_product([expr_size(f, probes) for f in factors], probes)
        case Sum(terms):
            sizes = [expr_size(t, probes) for t in terms]
            return tuple(sum(column) for column in zip(*sizes, strict=True)) if sizes else (0,) * probes


def refs_of(expr: Expr) -> Iterator[Ref]:
    """Every axis of an operand that an expression mentions."""
    match expr:
        case Ref():
            yield expr
        case Prod(parts) | Sum(parts):
            for part in parts:
                yield from refs_of(part)


Term = tuple["int | Axis", ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """A sum of row-major products of Dims.  A factor is a Dim's id, or an `Axis` where a sum stands under a product."""

    terms: tuple[Term, ...]

    def dims(self) -> Iterator[int]:
        """Every Dim that the axis mentions, with repetitions, in order."""
        for term in self.terms:
            for factor in term:
                if isinstance(factor, int):
                    yield factor
                else:
                    yield from factor.dims()

    def render(self, name: Callable[[int], str]) -> str:
        """Print like einops, e.g. `q.h·q.d + k.h·k.d`, with `name` giving every Dim's name."""

        def factor_text(factor: int | Axis) -> str:
            return name(factor) if isinstance(factor, int) else f"({factor.render(name)})"

        return " + ".join("·".join(map(factor_text, term)) or "1" for term in self.terms) or "0"
