"""Attention along dependency relations, gathered in one pass (SAP, arXiv 2512.19125, step B).

The threshold is a mean over the whole data and is known only at the end, so the attention of every pair waits in a
file on disk; what stays in memory is a table of labels by heads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prunegraph.arrays import Array, Floats
from prunegraph.atomic_write import telling_of_no_room
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.attention_sites import Attention, ObservedValue
from prunegraph.observe.conllu import Parse
from prunegraph.observe.data import Sample
from prunegraph.observe.text import Batch, Tokens
from prunegraph.passes.score.align import align
from prunegraph.passes.score.dependencies import Parser, corrupted, pairs

DIRECTIONS = ("mean", "max", "dep_to_head", "head_to_dep")
THRESHOLDS = ("words", "literal")
SCOPES = ("global", "layer", "head")
_CHUNK = 4096


class RelationAttention:
    """For every label and head how often attention along that relation was below and above the threshold.

    Attributes:
        sites: Where heads attend.
        tau: By (threshold, scope) the threshold of every head.
        below: By (threshold, scope), `[labels, heads]`: pairs with less attention than the threshold.
        above: The same for more attention; a tie counts as neither.
        labels: The labels in the order of these rows, with how many pairs each had.
    """

    def __init__(
        self,
        sites: Sequence[Attention],
        parser: Parser | None,
        *,
        exclude: Collection[str],
        direction: str = "mean",
        causal: bool | None = None,
        threshold: float | None = None,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Prepare for a pass.

        Args:
            sites: Where to look.
            parser: What parses texts that come without trees.
            exclude: Labels that do not count.
            direction: Which of the two attentions of a pair counts; a causal model has only one.
            causal: Whether later tokens are hidden; found out from the maps if None.
            threshold: A fixed threshold besides those of `THRESHOLDS`.
            noise: Fraction of arcs to corrupt.
            seed: For the noise.
        """
        self.sites = tuple(sites)
        self.heads = sum(site.heads for site in sites)
        self.labels: dict[str, int] = {}
        self.causal = causal
        self.tau: dict[tuple[str, str], Floats] = {}
        self.below: dict[tuple[str, str], Floats] = {}
        self.above: dict[tuple[str, str], Floats] = {}
        self._parser, self._exclude, self._direction = parser, frozenset(exclude), direction
        self._given_causal, self._threshold, self._noise, self._seed = causal, threshold, noise, seed
        self._sums = {name: np.zeros(self.heads) for name in THRESHOLDS}
        self._cells = dict.fromkeys(THRESHOLDS, 0.0)
        self._file = tempfile.TemporaryFile()
        self._ids: dict[str, int] = {}
        self._record = np.dtype([("label", np.int32), ("attention", np.float32, (self.heads,))])

    @property
    def key(self) -> str:
        """Everything that the counts depend on."""
        parser = self._parser.name if self._parser else ""
        sites = [(site.label, site.heads) for site in self.sites]
        settings = (
            sorted(self._exclude),
            self._direction,
            self._given_causal,
            self._threshold,
            self._noise,
            self._seed,
        )
        return f"relations/1/{parser}/{sites}/{settings}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """The attention probabilities of every layer."""
        return [site.probabilities for site in self.sites if site.probabilities is not None]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Take in the maps of one batch.

        Raises:
            PruneGraphError: what heads attend to are not the tokens of the text.
        """
        trees = self._trees(batch.samples)
        views = [site.maps(values) for site in self.sites]
        for row, (sample, tokens) in enumerate(zip(batch.samples, batch.tokens, strict=True)):
            self._square(views, len(tokens.segments))
            maps = np.concatenate([view[row] for view in views]).astype(np.float32, copy=False)
            assert batch.mask is not None
            valid = np.flatnonzero(batch.mask[row])
            maps = maps[:, valid[:, None], valid]
            if np.isfinite(maps).all():
                here = Tokens(tokens.offsets[valid], tokens.segments[valid], tokens.truncated)
                self._sample(maps, here, sample, trees[row])

    def _square(self, views: Sequence[Array], length: int) -> None:
        for site, view in zip(self.sites, views, strict=True):
            if view.shape[-2:] != (length, length):
                shape = " by ".join(map(str, view.shape[-2:]))
                raise PruneGraphError(
                    f"{site.label} attends over {shape} positions, the text has {length} tokens",
                    hint="sap is for models whose heads attend from every token to every token of the text",
                )

    def _trees(self, samples: Sequence[Sample]) -> list[tuple[Parse, ...]]:
        texts = [text for sample in samples if not sample.parses for text in sample.texts]
        if texts and self._parser is None:
            raise UsageError("a text comes without a tree", hint="give a tree for all of them, or a parser for none")
        parsed = self._parser.parse(texts) if self._parser is not None and texts else iter(())
        return [sample.parses or tuple(next(parsed) for _ in sample.texts) for sample in samples]

    def _sample(self, maps: npt.NDArray[np.float32], tokens: Tokens, sample: Sample, trees: Sequence[Parse]) -> None:
        if self.causal is None and maps.shape[-1] > 1:
            self.causal = not np.triu(maps, 1).any()
        words = [(segment, *span) for segment, tree in enumerate(trees) for span in tree.spans]
        aligned = align(words, tokens)
        attention = aligned.attention(maps)
        self._mean("literal", maps)
        self._mean("words", attention)
        start = 0
        rows = []
        for segment, tree in enumerate(trees):
            arcs = pairs(tree, self._exclude)
            arcs = corrupted(arcs, len(tree.spans), self._noise, self._seed, sample.texts[segment])
            for head, dependent, label in arcs:
                h, d = int(aligned.of_word[start + head]), int(aligned.of_word[start + dependent])
                if h != d and h >= 0 and d >= 0:
                    rows.append((self._id(label), self._along(attention, h, d)))
            start += len(tree.spans)
        if rows:
            self._write(np.array(rows, dtype=self._record))

    def _write(self, records: Array) -> None:
        with telling_of_no_room():
            self._file.write(records.tobytes())

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or another process needs: the pairs themselves in place of the file, unless it is done with."""
        state = dict(self.__dict__)
        pairs_there = b""
        if not self._file.closed:
            self._file.seek(0)
            pairs_there = self._file.read()
        return {**state, "_file": pairs_there}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the pairs to a file of its own."""
        self.__dict__.update(state)
        self._file = tempfile.TemporaryFile()
        with telling_of_no_room():
            self._file.write(state["_file"])

    def _mean(self, name: str, maps: npt.NDArray[np.float32]) -> None:
        n = maps.shape[-1]
        self._sums[name] += maps.sum(axis=(1, 2), dtype=np.float64)
        self._cells[name] += n * (n + 1) / 2 if self.causal else n * n

    def _along(self, attention: npt.NDArray[np.float32], head: int, dependent: int) -> npt.NDArray[np.float32]:
        """Attention of every head along one relation."""
        there, back = attention[:, dependent, head], attention[:, head, dependent]
        if self.causal:
            return there if dependent > head else back
        if self._direction == "mean":
            return (there + back) / np.float32(2)
        return {"max": np.maximum(there, back), "dep_to_head": there, "head_to_dep": back}[self._direction]

    def _id(self, label: str) -> int:
        number = self._ids.setdefault(label, len(self._ids))
        self.labels[label] = self.labels.get(label, 0) + 1
        return number

    def merge(self, other: RelationAttention) -> None:
        """Add the pairs that another has gathered; its own stay where they are.

        Raises:
            UsageError: one of them has counted already, against a threshold of its part of the data alone.
        """
        if self.below or other.below:
            raise UsageError("relations that were counted cannot be merged", hint="merge before the counts are asked")
        self.causal = other.causal if self.causal is None else self.causal
        numbers = [self._ids.setdefault(label, len(self._ids)) for label in other._ids]
        for label, count in other.labels.items():
            self.labels[label] = self.labels.get(label, 0) + count
        for name in THRESHOLDS:
            self._sums[name] = self._sums[name] + other._sums[name]
            self._cells[name] += other._cells[name]
        other._file.seek(0)
        while block := other._file.read(self._record.itemsize * _CHUNK):
            records = np.frombuffer(block, dtype=self._record).copy()
            records["label"] = np.array(numbers, dtype=np.int32)[records["label"]]
            self._write(records)

    def finish(self) -> None:
        """Count what lies on either side of every threshold; done once, after the pass."""
        if self.below:
            return
        self.tau = self._taus()
        shape = (len(self._ids), self.heads)
        self.below = {variant: np.zeros(shape) for variant in self.tau}
        self.above = {variant: np.zeros(shape) for variant in self.tau}
        self._file.seek(0)
        while block := self._file.read(self._record.itemsize * _CHUNK):
            records = np.frombuffer(block, dtype=self._record)
            for variant, tau in self.tau.items():
                level = tau.astype(np.float32)
                np.add.at(self.below[variant], records["label"], records["attention"] < level)
                np.add.at(self.above[variant], records["label"], records["attention"] > level)
        self._file.close()

    def _taus(self) -> dict[tuple[str, str], Floats]:
        """The mean attention over cells between words, and over all cells, by scope."""
        thresholds: dict[tuple[str, str], Floats] = {}
        for name in THRESHOLDS:
            mean = self._sums[name] / max(self._cells[name], 1.0)
            layers = np.split(mean, np.cumsum([site.heads for site in self.sites])[:-1])
            thresholds[name, "global"] = np.full(self.heads, mean.mean())
            thresholds[name, "layer"] = np.concatenate([np.full(len(layer), layer.mean()) for layer in layers])
            thresholds[name, "head"] = mean
        if self._threshold is not None:
            thresholds["given", "global"] = np.full(self.heads, self._threshold)
        return thresholds

    def state(self) -> dict[str, Array]:
        """The table of labels by heads for every threshold."""
        self.finish()
        arrays: dict[str, Array] = {
            "labels": np.array(list(self.labels)),
            "counts": np.array(list(self.labels.values())),
        }
        for (name, scope), tau in self.tau.items():
            variant = f"{name}.{scope}"
            arrays |= {f"tau.{variant}": tau}
            arrays |= {f"below.{variant}": self.below[name, scope], f"above.{variant}": self.above[name, scope]}
        return arrays | {"causal": np.array(bool(self.causal))}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a table."""
        labels = [str(label) for label in state["labels"]]
        self.labels = dict(zip(labels, map(int, state["counts"]), strict=True))
        self.causal = bool(state["causal"])
        for name, array in state.items():
            kind, _, variant = name.partition(".")
            if kind in ("tau", "below", "above"):
                first, _, scope = variant.partition(".")
                getattr(self, kind)[first, scope] = array
