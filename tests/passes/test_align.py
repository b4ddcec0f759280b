"""Words and tokens: who stands for whom, whatever the tokenizer does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunegraph.observe.data import Sample
from prunegraph.observe.text import TextReader, Tokens
from prunegraph.passes.score.align import Alignment, align
from prunegraph.runtime.inputs import InputSpec
from tests.graphs.text import piece_tokenizer, word_tokenizer

IDS = (InputSpec("input_ids", np.dtype(np.int64), ("b", "s")),)
Word = tuple[int, int, int]


def words(*texts: str) -> list[Word]:
    """The words of texts that mark their ends by `|`; the text itself is without these marks."""
    collected = []
    for segment, marked in enumerate(texts):
        start = 0
        for word in marked.split("|"):
            bare = word.strip(" ")
            lead = len(word) - len(word.lstrip(" "))
            collected.append((segment, start + lead, start + lead + len(bare)))
            start += len(word)
    return collected


def aligned(folder: Path, *marked: str, length: int = 32) -> Alignment:
    reader = TextReader(folder, max_length=length)
    sample = Sample(texts=tuple(text.replace("|", "") for text in marked))
    batch = reader.batch([sample], reader.encode([sample]), IDS, 1)
    return align(words(*marked), batch.tokens[0])


def members(alignment: Alignment) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in alignment.members]


PIECES = ["do", "don", "'", "t", "well", "-", "known", "act", "##ors", "http", ":", "/", "x", ".", "y", "i"]

CASES: dict[str, tuple[str, list[int], list[list[int]]]] = {
    "one piece a word": ("i| act", [0, 1], [[1], [2]]),
    "pieces of a word": ("i| actors", [0, 1], [[1], [2, 3]]),
    "contraction": ("i| do|n't| act", [0, 1, 1, 2], [[1], [2, 3, 4], [5]]),
    "hyphen": ("well|-|known| act", [0, 1, 2, 3], [[1], [2], [3], [4]]),
    "URL, one word to the parser": ("http://x.y| i", [0, 1], [[1, 2, 3, 4, 5, 6, 7], [8]]),
    "a word of no token": ("i|  | act", [0, -1, 1], [[1], [2]]),
}


@pytest.mark.parametrize("case", CASES)
def test_pieces(case: str, tmp_path: Path) -> None:
    """Tokens of `[CLS] … [SEP]`; words that share one become one unit."""
    text, units, tokens = CASES[case]
    spans = aligned(piece_tokenizer(tmp_path, PIECES), text)
    assert (spans.of_word.tolist(), members(spans)) == (units, tokens)


def test_one_token_over_many_words(tmp_path: Path) -> None:
    spans = aligned(word_tokenizer(tmp_path), "well|-|known| dog")
    assert (spans.of_word.tolist(), members(spans)) == ([0, 0, 0, 1], [[1], [2]])


def test_truncated_words_are_dropped(tmp_path: Path) -> None:
    """[CLS] i act [SEP] is left of `i actors i`: `actors` lost a piece, the last word all of it."""
    spans = aligned(piece_tokenizer(tmp_path, PIECES), "i| actors| i", length=4)
    assert (spans.of_word.tolist(), members(spans)) == ([0, -1, -1], [[1]])


def test_sentence_pairs_do_not_meet(tmp_path: Path) -> None:
    """Offsets of both texts start at zero: only the segment tells them apart."""
    spans = aligned(piece_tokenizer(tmp_path, PIECES), "i| act", "actors| do")
    assert (spans.of_word.tolist(), members(spans)) == ([0, 1, 2, 3], [[1], [2], [4, 5], [6]])


@pytest.mark.parametrize("left", [False, True])
def test_padding_shifts_tokens_only(left: bool, tmp_path: Path) -> None:
    reader = TextReader(word_tokenizer(tmp_path, left=left))
    samples = [Sample(texts=("the dog",)), Sample(texts=("the big dog saw it",))]
    batch = reader.batch(samples, reader.encode(samples), IDS, 2)
    spans = align(words("the| dog"), batch.tokens[0])
    first = 4 if left else 1
    assert members(spans) == [[first], [first + 1]]
    assert batch.mask is not None
    assert batch.mask[0].tolist() == ([False] * 3 + [True] * 4 if left else [True] * 4 + [False] * 3)
    assert batch.feeds["input_ids"][0][batch.mask[0]].tolist() == [2, 4, 6, 3]


def test_attention_to_a_word_is_a_sum_and_from_it_a_mean() -> None:
    """Three tokens, the last two one word; worked out by hand."""
    tokens = Tokens(np.array([[0, 1], [2, 4], [4, 6]]), np.zeros(3, np.int64), False)
    spans = align([(0, 0, 1), (0, 2, 6)], tokens)
    maps = np.array([[[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]]], np.float32)
    expected = [[0.5, 0.5], [0.2, 0.8]]
    np.testing.assert_allclose(spans.attention(maps)[0], expected, atol=1e-6)
    np.testing.assert_allclose(spans.attention(maps).sum(-1), 1, atol=1e-6)
