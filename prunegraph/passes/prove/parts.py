"""Inner values that are compared together: as many as memory holds, the others in further runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from prunegraph.analysis.facts import Facts
from prunegraph.runtime import limits
from prunegraph.runtime.cut import BYTES_A_BLOCK
from prunegraph.runtime.feeds import Feeds

NUMBER = 4
"""Bytes of a number: everything is compared in float32."""

LEAST = 1 << 26
"""Values of so many bytes are compared together in any case."""


def bytes_together(weights: int) -> int:
    """How many bytes of inner values are compared together: where a model runs by blocks, a third of its weights.

    There are three copies of them then: what is expected, what there is, and what other weights would make of it.

    Args:
        weights: Bytes of the weights.
    """
    if weights <= BYTES_A_BLOCK:
        return limits.BYTES_OF_INNER
    return min(limits.BYTES_OF_INNER, max(weights // 3, LEAST))


def estimated_bytes(facts: Facts, feeds: Feeds) -> Callable[[str], int]:
    """How large a value gets on some inputs, by what probes saw of it: of one with inputs as large, or the largest.

    Args:
        facts: What was seen of every value.
        feeds: The inputs.
    """
    known = [name for name in feeds if name in facts.shapes]
    elements = sum(feeds[name].size for name in known)
    probed = [sum(_elements(facts, name, run) for name in known) for run in range(facts.probes)]
    if not elements or not any(probed):
        return lambda _: 0
    enough = [run for run, size in enumerate(probed) if size >= elements]
    run = min(enough, key=probed.__getitem__) if enough else max(range(len(probed)), key=probed.__getitem__)
    factor = max(1.0, elements / max(probed[run], 1))
    return lambda name: math.ceil(NUMBER * factor * _elements(facts, name, run)) if name in facts.shapes else 0


def _elements(facts: Facts, name: str, run: int) -> int:
    return math.prod(size[run] for size in facts.shapes[name])


def in_parts(names: Sequence[str], size: Callable[[str], int], limit: int) -> list[list[str]]:
    """Names in their order, in parts of no more than so many bytes; one part at least, and one name at least in each.

    >>> in_parts(["a", "b", "c"], {"a": 3, "b": 4, "c": 9}.__getitem__, 8)
    [['a', 'b'], ['c']]
    """
    parts: list[list[str]] = [[]]
    total = 0
    for name in names:
        if parts[-1] and total + size(name) > limit:
            parts.append([])
            total = 0
        parts[-1].append(name)
        total += size(name)
    return parts
