"""Words to tokens: which tokens stand for which word, by character offsets.

Attention to a word is the sum over its tokens, attention from a word the mean (Clark et al. 2019), so that rows go
on summing to one.  Words that share a token (`don't`, hyphens, URLs) become one unit, and a word that lost a piece to
truncation none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunegraph.observe.text import Tokens

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Units of words, in the order of their first tokens.

    Attributes:
        of_word: The unit of every word, -1 for a word that has no tokens or lost some.
        members: `[units, tokens]`, 1 where a token is of a unit.
    """

    of_word: npt.NDArray[np.int64]
    members: Floats

    def attention(self, maps: Floats) -> Floats:
        """Attention between units, `[heads, units, units]`, of attention between tokens, `[heads, tokens, tokens]`."""
        rows = self.members / np.maximum(self.members.sum(axis=1, keepdims=True), 1)
        return np.asarray(rows @ (maps @ self.members.T))


def align(words: Sequence[tuple[int, int, int]], tokens: Tokens) -> Alignment:
    """Bring words and tokens together.

    Args:
        words: (text, start, end) of every word, in characters of its text.
        tokens: Where the tokens come from; words and tokens of different texts never meet.
    """
    spans = np.asarray(words, dtype=np.int64).reshape(-1, 3)
    real = (tokens.segments >= 0) & (tokens.offsets[:, 1] > tokens.offsets[:, 0])
    starts, ends = tokens.offsets[:, :1], tokens.offsets[:, 1:]
    meets = (starts < spans[:, 2]) & (spans[:, 1] < ends) & (tokens.segments[:, None] == spans[:, 0]) & real[:, None]
    unit = _merged(meets)
    cut = ~meets.any(axis=0)
    if tokens.truncated:
        cut |= _lost_a_piece(spans, tokens, real)
    unit = np.where(np.isin(unit, unit[cut]), -1, unit)
    first = {int(u): int(np.argmax(meets[:, unit == u].any(axis=1))) for u in np.unique(unit[unit >= 0])}
    order = sorted(first, key=first.__getitem__)
    number = {u: k for k, u in enumerate(order)}
    of_word = np.array([number.get(int(u), -1) for u in unit], dtype=np.int64)
    members = np.zeros((len(order), len(real)), dtype=np.float32)
    for k, u in enumerate(order):
        members[k] = meets[:, unit == u].any(axis=1)
    return Alignment(of_word, members)


def _merged(meets: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For every word the first word that it shares tokens with, directly or through others."""
    unit = np.arange(meets.shape[1], dtype=np.int64)
    for token in np.flatnonzero(meets.sum(axis=1) > 1):
        together = unit[meets[token]]
        unit[np.isin(unit, together)] = together.min()
    return unit


def _lost_a_piece(spans: npt.NDArray[np.int64], tokens: Tokens, real: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Words that reach beyond the first or the last token that was kept of their text."""
    lost = np.zeros(len(spans), dtype=bool)
    for segment in np.unique(spans[:, 0]):
        kept = tokens.offsets[real & (tokens.segments == segment)]
        of_segment = spans[:, 0] == segment
        inside = (spans[:, 1] >= kept[:, 0].min()) & (spans[:, 2] <= kept[:, 1].max()) if len(kept) else np.array(False)
        lost |= of_segment & ~inside
    return lost
