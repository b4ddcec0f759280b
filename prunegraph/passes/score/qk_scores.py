"""How much every dim of queries and keys has to do with the leading parts of the scores (SNP, arXiv 2404.11630).

Per head `Q K^T = sum_i q_i k_i^T = sum_j s_j u_j v_j^T`, and dim i scores
`sum_{j <= gamma} |cos(s_j u_j v_j^T, q_i k_i^T)|` (figure 2a).  With thin QR, `Q = Q' R_q` and `K = K' R_k`, all of
that happens between the d x d matrices R_q and R_k: no product over positions is ever formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.axes import Axis, Size
from prunegraph.analysis.slots import Slots, axis_size, slots
from prunegraph.analysis.solution import ContractionSite, Solution
from prunegraph.analysis.solution import Operand as Factor
from prunegraph.arrays import Array, Floats
from prunegraph.observe.attention_sites import HeadAxes, ObservedValue
from prunegraph.observe.text import Batch


@dataclass(frozen=True, slots=True)
class Operand:
    """Queries or keys: where to read them, how to bring them to `[batch, heads, positions, dims]`, what they are of."""

    value: str
    view: HeadAxes
    heads: Axis
    dims: Axis
    split: bool

    def read(self, values: Mapping[str, Array]) -> Floats:
        """`[batch, heads, positions, dims]` in float64."""
        array = values[self.value]
        if self.split:  # heads and dims share the last axis: heads come out of it
            last = self.view.rest[-1]
            array = np.moveaxis(array, last, -1)
            array = array.reshape(*array.shape[:-1], self.view.count, -1)
            order = [axis - (axis > last) for axis in (*self.view.batch, *self.view.heads, self.view.rest[0])]
            moved = np.transpose(array, (*order[:-1], array.ndim - 2, order[-1], array.ndim - 1))
            return np.asarray(moved.reshape(-1, *moved.shape[-3:]), dtype=np.float64)
        return np.asarray(self.view.view(array), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Scored:
    """A product of queries and keys.

    Attributes:
        label: The name of its node.
        leaves: The Dims that it sums over.
        q: The queries.
        k: The keys.
        key_head: Which head of the keys every head of the queries is compared with.
    """

    label: str
    leaves: frozenset[int]
    q: Operand
    k: Operand
    key_head: npt.NDArray[np.int64]


def products(model: ir.Model, analysis: Analysis) -> Iterator[tuple[frozenset[int], str, Scored | None]]:
    """Every product of activations that sums over a Dim which may shrink: that Dims, the node, and how to read it.

    None where an op hides one of the operands.
    """
    solution = analysis.solution
    free = {group.dim for group in analysis.groups if group.kind == "qk_dim"}
    counted = {dim for group in analysis.groups for dim in (group.dim, *group.outer)} - free
    nodes = list(model.graph)
    for contraction in solution.contractions():
        if contraction.summed & free and contraction.of_activations:
            node = nodes[contraction.node]
            yield contraction.summed, node.name or node.op_type, _scored(node, contraction, counted, solution)


def _scored(node: ir.Node, contraction: ContractionSite, counted: set[int], solution: Solution) -> Scored | None:
    leaves = contraction.summed
    q, k = (_operand(operand, leaves, counted, solution) for operand in contraction.operands)
    if q is None or k is None or _changed_inside(node):
        return None
    if _length(q.heads, solution) < _length(k.heads, solution):
        q, k = k, q  # keys are the side that is shared
    shared = _matched(q.heads, k.heads, counted, solution)
    return None if shared is None else Scored(node.name or node.op_type, leaves, q, k, shared)


def _changed_inside(node: ir.Node) -> bool:
    """Whether a fused op adds a bias to its operands or rotates them before it compares them."""
    biased = node.op_type == "MultiHeadAttention" and len(node.inputs) > 3 and node.inputs[3] is not None
    return biased or bool(node.attributes.get_int("do_rotary", 0))


def _operand(operand: Factor, leaves: frozenset[int], counted: set[int], solution: Solution) -> Operand | None:
    name = operand.value
    axes = solution.resolve(name) if name in solution.axes else ()
    width = [k for k, axis in enumerate(axes) if leaves & set(axis.dims())]
    token = list(operand.free)
    if len(width) != 1 or len(token) != 1 or width == token:
        return None
    others = [k for k in range(len(axes)) if k not in (*width, *token)]
    heads = tuple(k for k in others if counted & set(axes[k].dims()))
    lead, dims = _cut(axes[width[0]], leaves)
    if lead.terms != ((),) and heads:
        return None
    every = lead if lead.terms != ((),) else Axis((tuple(axes[k] for k in heads),))
    view = HeadAxes(tuple(k for k in others if k not in heads), heads, (*token, *width), _length(every, solution))
    return Operand(name, view, every, dims, lead.terms != ((),))


def _cut(axis: Axis, leaves: frozenset[int]) -> tuple[Axis, Axis]:
    """`heads·width` taken apart; nothing stands before the width where heads have an axis of their own."""
    if len(axis.terms) == 1:
        term = axis.terms[0]
        has_width = [bool(leaves & ({f} if isinstance(f, int) else set(f.dims()))) for f in term]
        at = has_width.index(True)
        return Axis((term[:at],)), Axis((term[at:],))
    return Axis(((),)), axis


def _matched(q: Axis, k: Axis, counted: set[int], solution: Solution) -> npt.NDArray[np.int64] | None:
    """Which slot of k's heads has the same slots as each of q's, None if none has."""
    ours, theirs = (dict(slots(axis, period(solution), counted.__contains__)) for axis in (q, k))
    common = [dim for dim in theirs if dim in ours]
    if len(common) < len(theirs):
        return None
    lengths = _length(q, solution), _length(k, solution)
    same = np.ones(lengths, dtype=bool)
    for dim in common:
        same &= ours[dim][:, None] == theirs[dim][None, :]
    return np.argmax(same, axis=1) if same.any(axis=1).all() else None


def period(solution: Solution) -> Any:
    """The length of a Dim; a dynamic one counts once, it varies slowest."""

    def length(dim: int) -> Size:
        size = solution.dim_size(dim)
        return size if len(set(size)) == 1 else (1,) * len(size)

    return length


def _length(axis: Axis, solution: Solution) -> int:
    return axis_size(axis, period(solution), solution.space.probes)[0]


def _name(node: ir.Node, index: int) -> str:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value.name or "" if value is not None else ""


def dim_scores(q: Floats, k: Floats, gamma: int | None = None, energy: float = 0.9) -> Floats:
    """`sum_{j <= gamma} |cos(s_j u_j v_j^T, q_i k_i^T)|` for every dim i; SNP figure 2a in closed form.

    Args:
        q: `[..., queries, d]`; rows of zeros change nothing.
        k: `[..., keys, d]`.
        gamma: How many singular parts count; None: as many as hold `energy` of the sum of squares, at most half of d.
        energy: See `gamma`.

    Returns:
        `[..., d]`; a dim without length scores 0.
    """
    rq, rk = np.linalg.qr(q, mode="r"), np.linalg.qr(k, mode="r")
    u, s, vt = np.linalg.svd(rq @ np.swapaxes(rk, -1, -2), full_matrices=False)
    products = np.abs((np.swapaxes(u, -1, -2) @ rq) * (vt @ rk))
    counted = np.less(np.arange(s.shape[-1]), _leading(s, q.shape[-1], gamma, energy)[..., None])[..., None]
    norms = np.linalg.norm(rq, axis=-2) * np.linalg.norm(rk, axis=-2)
    total = np.where(counted, products, 0.0).sum(axis=-2)
    return np.asarray(np.divide(total, norms, out=np.zeros_like(total), where=norms > 0))


def _leading(s: Floats, d: int, gamma: int | None, energy: float) -> npt.NDArray[np.int64]:
    if gamma is not None:
        return np.full(s.shape[:-1], gamma)
    energies = np.cumsum(s**2, axis=-1)
    short = (energies < energy * energies[..., -1:]).sum(axis=-1) + 1
    return np.asarray(np.clip(short, 1, max(1, d // 2)))


class QkScores:
    """Scores of the dims of queries and keys, summed over samples; see `dim_scores`.

    Attributes:
        sites: The products of queries and keys.
        sums: By site, `[heads, dims]` summed over samples.
        count: By site, how many samples every head was seen in.
    """

    def __init__(self, sites: Sequence[Scored], gamma: int | None = None, energy: float = 0.9) -> None:
        """Gather for these products."""
        self.sites, self.gamma, self.energy = tuple(sites), gamma, energy
        self.sums: list[Floats | None] = [None] * len(self.sites)
        self.count: list[Floats | None] = [None] * len(self.sites)

    @property
    def key(self) -> str:
        """The values and how much of the scores counts."""
        return f"qk/{[(site.q.value, site.k.value) for site in self.sites]}/{self.gamma}/{self.energy}"

    def observed_values(self) -> Sequence[ObservedValue]:
        """The queries and keys of every attention."""
        return [
            ObservedValue(name)
            for name in dict.fromkeys(n for site in self.sites for n in (site.q.value, site.k.value))
        ]

    def update(self, batch: Batch, values: Mapping[str, Array]) -> None:
        """Score one batch, sample by sample; padding and rows that fill up a fixed batch do not count."""
        rows = next(iter(batch.feeds.values())).shape[0] if batch.feeds else 1
        for n, site in enumerate(self.sites):
            q, k = site.q.read(values), site.k.read(values)[:, site.key_head]
            k = np.broadcast_to(k, (max(len(k), len(q)), *k.shape[1:]))
            q = np.broadcast_to(q, (len(k), *q.shape[1:]))
            q, k = (_without_padding(each, batch, rows) for each in (q, k))
            finite = np.asarray(np.isfinite(q).all(axis=(2, 3)) & np.isfinite(k).all(axis=(2, 3)))
            q, k = (np.where(finite[..., None, None], each, 0.0) for each in (q, k))
            scores = dim_scores(q, k, self.gamma, self.energy).sum(axis=0)
            before, counted = self.sums[n], self.count[n]
            self.sums[n] = scores if before is None else before + scores
            self.count[n] = finite.sum(axis=0) if counted is None else counted + finite.sum(axis=0)

    def merge(self, other: QkScores) -> None:
        """Add what another has gathered of the same products."""
        for n, (sums, count) in enumerate(zip(other.sums, other.count, strict=True)):
            if sums is None or count is None:
                continue
            before, counted = self.sums[n], self.count[n]
            self.sums[n] = sums if before is None else before + sums
            self.count[n] = count if counted is None else counted + count

    def mean(self, n: int) -> Floats:
        """`[heads, dims]` of a site, averaged over samples."""
        sums, count = self.sums[n], self.count[n]
        assert sums is not None and count is not None
        return np.asarray(sums / np.maximum(count, 1)[:, None])

    def state(self) -> dict[str, Array]:
        """Two arrays a site, numbered."""
        arrays: dict[str, Array] = {}
        for n, (sums, count) in enumerate(zip(self.sums, self.count, strict=True)):
            assert sums is not None and count is not None
            arrays |= {f"s{n}": sums, f"n{n}": count}
        return arrays

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` once gave."""
        for n in range(len(self.sites)):
            self.sums[n], self.count[n] = state[f"s{n}"], state[f"n{n}"]


def _without_padding(array: Floats, batch: Batch, rows: int) -> Floats:
    """`[samples, heads, positions, dims]` with zeros in padded positions: a row of zeros changes no score."""
    each = len(array) // rows if rows and len(array) % rows == 0 else 0
    if not each:
        return array
    array = array[: len(batch.samples) * each]
    mask = batch.mask
    if mask is None or array.shape[2] < mask.shape[1] or each > 1:
        return array
    past = np.ones((len(mask), array.shape[2] - mask.shape[1]), dtype=bool)
    return np.asarray(np.where(np.concatenate([past, mask], axis=1)[:, None, :, None], array, 0.0))


__all__ = ["Operand", "QkScores", "Scored", "Slots", "dim_scores", "period", "products"]
