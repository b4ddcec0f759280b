"""Signatures of heads: attention maps of one size whatever the text's length, by class (CAHP, arXiv 2606.19150).

The map of an example, without padding, is resized to 32 x 32; by class and cell a running mean and variance are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunegraph.analysis.groups import Group
from prunegraph.arrays import Floats
from prunegraph.errors import UsageError
from prunegraph.observe.attention_sites import Attention, ObservedValue
from prunegraph.observe.gradients import Objective
from prunegraph.observe.stream import Array
from prunegraph.observe.text import Batch

SIDE = 32
FLOOR = 1e-6
"""The smallest variance of a cell, and that of a class with one example."""


class Signatures:
    """Mean and variance of every cell of every unit's signature, by class, in one pass (Welford); a `Statistic`.

    A unit of several heads (a KV group, a head that layers share) has the mean of their maps.

    Attributes:
        sites: The places where heads attend.
        shapes: By group id its shape; units are counted group by group.
        labels: The classes seen, in the order of appearance.
        counts: By class how many examples were seen.
        mean: By class `[units, cells]`.
    """

    def __init__(
        self, sites: Sequence[Attention], groups: Sequence[Group], objective: Objective | None, classes: int
    ) -> None:
        """Gather for the units of these groups.

        Args:
            sites: The places where heads attend.
            groups: Whose units.
            objective: Whose argmax is the class where samples have no label; None where all have one.
            classes: How many classes are told apart: the first ones to appear.
        """
        self.sites, self._objective, self._limit = tuple(sites), objective, classes
        self.shapes = {group.id: group.shape for group in groups}
        self.units = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self._merge = [_merging(site, self.shapes) for site in self.sites]
        units = [unit for _, units in self._merge for unit in units]
        self._heads = np.bincount(np.array(units, dtype=np.int64), minlength=self.units)
        self.labels: list[int] = []
        self.counts: list[int] = []
        self.mean: list[Floats] = []
        self._squares: list[Floats] = []

    @property
    def key(self) -> str:
        """The places, units and classes."""
        sites = [site.label + site.context for site in self.sites]
        return f"signatures/{sites}/{self.shapes}/{self._objective}/{self._limit}/{SIDE}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """Attention probabilities, and logits where they are needed."""
        maps = [site.probabilities for site in self.sites if site.probabilities is not None]
        return [*maps, *([ObservedValue(self._objective.output)] if self._objective else [])]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Take in one batch."""
        count = len(batch.samples)
        if self._objective is not None:
            labels = values[self._objective.output][:count].argmax(axis=-1).tolist()
        else:
            labels = [sample.label for sample in batch.samples]
        cells = np.zeros((count, self.units, SIDE * SIDE), dtype=np.float32)
        for site, (heads, units) in zip(self.sites, self._merge, strict=True):
            resized = signatures(site.maps(values), batch)
            for head, unit in zip(heads, units, strict=True):
                cells[:, unit] += resized[:, head]
        cells /= np.maximum(self._heads, 1)[:, None]
        for label, each in zip(labels, cells, strict=True):
            self._add(int(label), each)

    def _add(self, label: int, cells: Array) -> None:
        if label not in self.labels:
            if len(self.labels) == self._limit:
                return
            self.labels.append(label)
            self.counts.append(0)
            self.mean.append(np.zeros(cells.shape))
            self._squares.append(np.zeros(cells.shape))
        k = self.labels.index(label)
        self.counts[k] += 1
        off = cells - self.mean[k]
        self.mean[k] += off / self.counts[k]
        self._squares[k] += off * (cells - self.mean[k])

    def merge(self, other: Signatures) -> None:
        """Add what another has gathered of the same units (Chan's formula for two means and variances).

        Raises:
            UsageError: the other has left out a class that this one knows, for it has seen too many.
        """
        if len(other.labels) == self._limit and set(self.labels) - set(other.labels):
            hint = "let every part tell all classes apart"
            raise UsageError(f"signatures of more than {self._limit} classes cannot be merged", hint=hint)
        for label, count, mean, squares in zip(other.labels, other.counts, other.mean, other._squares, strict=True):
            if label in self.labels:
                k = self.labels.index(label)
                total, off = self.counts[k] + count, mean - self.mean[k]
                self._squares[k] = self._squares[k] + squares + off**2 * (self.counts[k] * count / total)
                self.mean[k] = self.mean[k] + off * (count / total)
                self.counts[k] = total
            elif len(self.labels) < self._limit:
                self.labels.append(label)
                self.counts.append(count)
                self.mean.append(mean)
                self._squares.append(squares)

    @property
    def labelled_by(self) -> str:
        """Where the classes are from, in words."""
        return "the model's own predictions" if self._objective else "labels"

    def variance(self, k: int) -> Floats:
        """The unbiased variance of every cell in the k-th class, `[units, cells]`; `FLOOR` of one example."""
        if self.counts[k] < 2:
            return np.full_like(self._squares[k], FLOOR)
        return self._squares[k] / (self.counts[k] - 1)

    def state(self) -> dict[str, Array]:
        """Counts, means and sums of squares by class."""
        shape = (len(self.labels), self.units, SIDE * SIDE)
        return {
            "labels": np.array(self.labels, dtype=np.int64),
            "counts": np.array(self.counts, dtype=np.int64),
            "mean": np.reshape(self.mean, shape),
            "squares": np.reshape(self._squares, shape),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        self.labels, self.counts = state["labels"].tolist(), state["counts"].tolist()
        self.mean, self._squares = list(state["mean"]), list(state["squares"])


def signatures(maps: Array, batch: Batch) -> Array:
    """The map of every head of every example without padding, resized, `[examples, heads, SIDE * SIDE]`.

    Args:
        maps: `[rows, heads, queries, keys]`, rows the batch times perhaps something (windows), whose mean is taken.
        batch: Tells padding: an axis as long as the text is read where its mask is True, wherever that is.
    """
    rows = next(iter(batch.feeds.values())).shape[0]
    several = len(maps) // rows
    kept = np.nan_to_num(maps[: len(batch.samples) * several])  # rows of a fully masked query may be NaN
    across, down = (_resizers(kept.shape[axis], batch, several) for axis in (-1, -2))
    resized = down @ kept @ across.transpose(0, 1, 3, 2)
    each = resized.reshape(len(batch.samples), several, maps.shape[1], SIDE * SIDE)
    return np.asarray(each.mean(axis=1))


def _resizers(length: int, batch: Batch, several: int) -> Array:
    """`[examples, 1, SIDE, length]`."""
    count = len(batch.samples)
    if batch.mask is None or batch.mask.shape[1] != length:
        return np.broadcast_to(resizer(length), (count * several, 1, SIDE, length))
    weights = np.zeros((count, 1, SIDE, length), dtype=np.float32)
    for example, mask in enumerate(batch.mask):
        if mask.any():
            weights[example, 0][:, mask] = resizer(int(mask.sum()))
    return np.repeat(weights, several, axis=0)


def resizer(length: int, side: int = SIDE) -> Array:
    """The matrix `[side, length]` that resizes bilinearly: half-pixel centres, no antialiasing (CAHP's code).

    >>> resizer(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    source = np.maximum(0.0, (np.arange(side) + 0.5) * length / side - 0.5)
    left = np.minimum(np.floor(source).astype(np.int64), length - 1)
    right = np.minimum(left + 1, length - 1)
    share = source - left
    matrix = np.zeros((side, length))
    np.add.at(matrix, (np.arange(side), left), 1 - share)
    np.add.at(matrix, (np.arange(side), right), share)
    return matrix.astype(np.float32)


def _merging(site: Attention, shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Heads of a site, and the unit of each counted over all groups."""
    heads: list[int] = []
    units: list[int] = []
    start = 0
    for name, shape in shapes.items():
        for head, unit in enumerate(site.units.get(name, ())):
            if unit >= 0:
                heads.append(head)
                units.append(start + int(unit))
        start += int(np.prod(shape))
    return heads, units
