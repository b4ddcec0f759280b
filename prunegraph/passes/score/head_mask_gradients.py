"""Gradients of the loss by a head mask, without one: they are sums of context times its gradient.

A mask of one multiplies what a head puts out, so that `dL/dmask = Σ context · dL/dcontext` over that head in that
example.  Units of several heads (KV groups, heads that layers share) have one mask: the sum over their heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from prunegraph.analysis.groups import Group
from prunegraph.analysis.solve import Solution
from prunegraph.arrays import Floats
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.observe.attention_sites import Attention, attentions
from prunegraph.observe.head_mask import head_index
from prunegraph.observe.stream import Array
from prunegraph.observe.text import Batch
from prunegraph.passes.score.base import Context

BATCH = 32


class HeadMaskGradients:
    """By unit the mean of |gradient| over examples, and over batches of `BATCH` examples; a `GradientStatistic`.

    Batches are those of the loss, whatever number of examples runs together: `BATCH` consecutive examples each, the
    last one perhaps fewer.

    Attributes:
        sites: The places where heads attend.
        shapes: By group id, its shape.
        count: How many examples were seen.
        examples: By group id, the sum over examples of |gradient by the head mask| of the example's loss.
        batches: By group id, the sum over full batches of |gradient by the head mask| of the batch's mean loss.
    """

    def __init__(
        self, sites: Sequence[Attention], groups: Sequence[Group], solution: Solution, samples: int | None = None
    ) -> None:
        """Gather for the units of these groups, from the first samples or from all."""
        self.sites = tuple(sites)
        self.shapes = {group.id: group.shape for group in groups}
        self._index = [head_index(site, solution) for site in self.sites]
        self._samples = samples
        self.count = 0
        self.examples = {name: np.zeros(int(np.prod(shape))) for name, shape in self.shapes.items()}
        self.batches = {name: np.zeros_like(total) for name, total in self.examples.items()}
        self._waiting = {name: np.zeros_like(total) for name, total in self.examples.items()}

    @property
    def key(self) -> str:
        """The places and units."""
        return f"gates/{[site.context for site in self.sites]}/{self.shapes}/{self._samples}/{BATCH}"

    @property
    def samples(self) -> int | None:
        """How many samples it wants to see."""
        return self._samples

    def activations(self) -> Sequence[str]:
        """What comes out of the heads."""
        return [site.context for site in self.sites]

    def weights(self) -> Sequence[str]:
        """No weights: gradients are those of the head mask."""
        return []

    def update(self, batch: Batch, pairs: Mapping[str, tuple[Array, Array]]) -> None:
        """Add what one batch shows."""
        rows = next(iter(batch.feeds.values())).shape[0]
        slopes = []
        for site, index in zip(self.sites, self._index, strict=True):
            value, gradient = pairs[site.context]
            slopes.append(_by_head(value * gradient, index, site.heads, rows)[: len(batch.samples)])
        self.take(slopes)

    def take(self, slopes: Sequence[Floats]) -> None:
        """Add gradients by the head mask, whoever computed them: by site `[examples, heads]`."""
        units = self._units(slopes)
        for name, each in units.items():
            self.examples[name] += np.abs(each).sum(axis=0)
        for example in range(len(slopes[0])):
            self.count += 1
            for name, each in units.items():
                self._waiting[name] += each[example]
                if self.count % BATCH == 0:
                    self.batches[name] += np.abs(self._waiting[name]) / BATCH
                    self._waiting[name][:] = 0

    def _units(self, slopes: Sequence[Floats]) -> dict[str, Floats]:
        """By group `[examples, units]`."""
        sums = {name: np.zeros((len(slopes[0]), len(total))) for name, total in self.examples.items()}
        for site, each in zip(self.sites, slopes, strict=True):
            for name in sums.keys() & site.units.keys():
                placed = site.units[name] >= 0
                np.add.at(sums[name].T, site.units[name][placed], each.T[placed])
        return sums

    def by_example(self, group: str) -> Floats:
        """The mean over examples, of the group's shape."""
        return np.asarray(self.examples[group] / max(self.count, 1)).reshape(self.shapes[group])

    def by_batch(self, group: str) -> Floats:
        """The mean over batches, of the group's shape; what is left over is a batch of its own."""
        rest = self.count % BATCH
        total = self.batches[group] + (np.abs(self._waiting[group]) / rest if rest else 0)
        return np.asarray(total / max(-(-self.count // BATCH), 1)).reshape(self.shapes[group])

    def merge(self, other: HeadMaskGradients) -> None:
        """Add what another has gathered of the same units, behind whole batches.

        Raises:
            UsageError: this one has seen a part of a batch, whose other samples would lie in another sum.
        """
        if self.count % BATCH:
            hint = f"cut the data behind a multiple of {BATCH} samples"
            raise UsageError(f"gradients of {self.count} samples cannot be merged with those of others", hint=hint)
        self.count += other.count
        for name in self.shapes:
            self.examples[name] = self.examples[name] + other.examples[name]
            self.batches[name] = self.batches[name] + other.batches[name]
            self._waiting[name] = self._waiting[name] + other._waiting[name]

    def state(self) -> dict[str, Array]:
        """Three arrays a group, numbered."""
        arrays: dict[str, Array] = {"count": np.array(self.count)}
        for k, name in enumerate(self.shapes):
            arrays |= {f"e{k}": self.examples[name], f"b{k}": self.batches[name], f"w{k}": self._waiting[name]}
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        self.count = int(state["count"])
        for k, name in enumerate(self.shapes):
            self.examples[name], self.batches[name] = state[f"e{k}"], state[f"b{k}"]
            self._waiting[name] = state[f"w{k}"]


def masked_sites(groups: Sequence[Group], context: Context, scorer: str) -> tuple[Attention, ...]:
    """Where the heads of these groups attend.

    Raises:
        PruneGraphError: a group has no such place.
    """
    sites = [s for s in attentions(context.model, context.analysis) if any(group.id in s.units for group in groups)]
    covered = {name for site in sites for name in site.units}
    missing = next((group.id for group in groups if group.id not in covered), None)
    if missing is not None or not sites:
        what = f"no attention of the model is over the heads of {missing}" if missing else "the model has no attention"
        raise PruneGraphError(f"{what}: {scorer} cannot score it", hint="choose another scorer, or --exclude the group")
    return tuple(sites)


def _by_head(product: Array, index: npt.NDArray[np.int64], heads: int, rows: int) -> Floats:
    """Sums over everything but the batch and the heads, `[batch, heads]`.

    Args:
        product: Of the shape of the context; its first axis is the batch, or the batch times something.
        index: Which head every position is of, see `head_index`; an axis of it repeats where the context's is longer.
        heads: How many there are.
        rows: The length of the batch.
    """
    split = product.reshape(rows, -1, *product.shape[1:])
    repeats = [length // own if own > 1 else 1 for length, own in zip(split.shape[1:], index.shape, strict=True)]
    where = np.tile(index, repeats)
    summed = tuple(k + 1 for k, length in enumerate(where.shape) if length == 1)
    left = split.sum(axis=summed, dtype=np.float64).reshape(rows, -1)
    by_head = np.zeros((heads, rows))
    np.add.at(by_head, where.reshape(-1), left.T)
    return by_head.T
