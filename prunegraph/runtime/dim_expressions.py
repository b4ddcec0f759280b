"""Dims that are expressions, such as `past + sequence`: which names are in them, and what they come to.

A file may call a dim what it likes: whatever is no short sum or product of names has no names and no value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

_EXPRESSION = re.compile(r"(?=.*[-+*/( ])(?!.*\*\*)[\w.:,%+*/() -]{1,200}")
"""No powers: a tower of a few nines has no end."""

_FAILURES = (ValueError, TypeError, KeyError, ArithmeticError, RecursionError)


def is_expression(dim: str) -> bool:
    """Whether a dim is not called by a plain name.

    >>> is_expression("past + 1"), is_expression("batch"), is_expression("9**9**9")
    (True, False, False)
    """
    return _EXPRESSION.fullmatch(dim) is not None


def symbols_in(dim: str) -> frozenset[str]:
    """The names in an expression; none in a plain name.

    >>> sorted(symbols_in("past + 2*sequence")), symbols_in("../up")
    (['past', 'sequence'], frozenset())
    """
    try:
        return ir.SymbolicDim(dim).free_symbols() if is_expression(dim) else frozenset()
    except _FAILURES:
        return frozenset()


def value_of(dim: str, sizes: Mapping[str, int]) -> int | None:
    """What an expression comes to; None where it comes to no length.

    >>> value_of("past + 2", {"past": 3}), value_of("past - 9", {"past": 3}), value_of("past / 0", {"past": 3})
    (5, None, None)
    """
    try:
        value = ir.SymbolicDim(dim).evaluate(dict(sizes)) if is_expression(dim) else None
    except _FAILURES:
        return None
    return value if isinstance(value, int) and value >= 0 else None
