"""Where heads may not turn: dims stay as they are, and what makes one side of the scores makes up for those that go.

With the dims K kept, `Q_K M K_Kᵀ` is nearest to `Q Kᵀ` for `M = (Σq_KK)⁻¹ Σq_K: Σk_:K (Σk_KK)⁻¹`.  That takes a way
back from the product to the weights of one side alone: keys may be cached, or made in whatever way, if queries are not.
CORP (arXiv 2602.05243).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.groups import Group
from prunegraph.analysis.read_weight import read_initializer
from prunegraph.analysis.slots import Keeps
from prunegraph.arrays import Floats, Mask
from prunegraph.observe.data import every_nth
from prunegraph.observe.stream import Inputs, SampleProgress, observe
from prunegraph.passes.repair.fit import GAIN
from prunegraph.passes.repair.outcome import Outcome
from prunegraph.passes.repair.statistics import HELD
from prunegraph.passes.repair.write import put
from prunegraph.passes.rotate.basis import centred
from prunegraph.passes.rotate.carry import FLOATS, Bends, Follower, Link, Spot, touching
from prunegraph.passes.rotate.moments import HeadMoments
from prunegraph.passes.rotate.sites import Finder, Held

KIND = "qk_dim"
RIDGE = 1e-4
"""Share of the mean second moment that is added to every one."""


@dataclass(frozen=True, slots=True)
class ScoreSite:
    """A group whose scores can be re-fitted on one side.

    Attributes:
        group: The group.
        weights: What makes that side.
        own: What is compared of that side.
        other: What it is compared with.
        keys: Which of both a Softmax goes along, so that a shift of it changes nothing; or None.
    """

    group: Group
    weights: tuple[Held, ...]
    own: Held
    other: Held
    keys: Held | None


def score_sites(graph: ir.Graph, analysis: Analysis, groups: Collection[str]) -> list[ScoreSite]:
    """The groups of queries and keys, among these, of which one side can be re-fitted."""
    qk_groups = [group for group in analysis.groups if group.kind == KIND and group.id in groups]
    if not qk_groups:
        return []
    follower = Follower(graph, analysis.solution)
    places = touching(graph, analysis.solution)
    candidates = (_site(analysis, follower, group, places.get(group.dim, [])) for group in qk_groups)
    return [site for site in candidates if site is not None]


def _site(analysis: Analysis, follower: Follower, group: Group, nodes: Sequence[int]) -> ScoreSite | None:
    finder = Finder(analysis.solution, follower, group, nodes)
    links: list[Link] = []
    closed = {spot for value in finder.values.values() if value.is_graph_input() or value.is_graph_output()
              for spot in follower.spots(value, group.dim)}  # fmt: skip
    for k in nodes:
        try:
            links += follower.links(k, group.dim)
        except Bends:
            node = follower.nodes[k]
            closed.update(spot for value in (*node.inputs, *node.outputs) for spot in follower.spots(value, group.dim))
    closed.update(spot for link in links if link.orthogonal for spot in (link.a, link.b))
    products = [link for link in links if link.summed and not _constant(analysis, link)]
    if len(products) != 1:
        return None
    (product,) = products
    for start, end in ((product.a, product.b), (product.b, product.a)):
        side = _side(start, links)
        others = {spot for link in links if link.summed for spot in (link.a, link.b)} - {start}
        if side & closed or side & others:
            continue
        weights = [spot for spot in side if _is_weight(finder, spot)]
        operands = [finder.held(spot) for spot in (*weights, start, end)]
        pair = finder.compared(product, dict.fromkeys((product.a, product.b), False), swapped=False)
        if weights and all(each.layout is not None for each in operands) and pair.biases == (None, None):
            keys = next(
                (each for each in operands[-2:] if pair.keys is not None and each.value == pair.keys.value), None
            )
            return ScoreSite(group, tuple(operands[:-2]), operands[-2], operands[-1], keys)
    return None


def _side(start: Spot, links: Sequence[Link]) -> set[Spot]:
    """All places that hang together with one without a sum over the dims."""
    side, waiting = {start}, [start]
    while waiting:
        spot = waiting.pop()
        for link in links:
            if link.summed or spot not in (link.a, link.b):
                continue
            other = link.b if spot == link.a else link.a
            if other not in side:
                side.add(other)
                waiting.append(other)
    return side


def _constant(analysis: Analysis, link: Link) -> bool:
    return any(spot[0] in analysis.solution.weights for spot in (link.a, link.b))


def _is_weight(finder: Finder, spot: Spot) -> bool:
    if not finder.is_weight(spot):
        return False
    value = finder.values[str(spot[0])]
    return value.dtype in FLOATS and value.const_value is not None


def refit_scores(
    model: ir.Model,
    analysis: Analysis,
    keeps: Keeps,
    inputs: Inputs,
    turned: Collection[str] = (),
    progress: SampleProgress | None = None,
) -> tuple[ir.Model | None, tuple[Outcome, ...]]:
    """The whole model with the weights of one side of the scores re-fitted, where held-out samples gain.

    Only the dims that stay hold what they should afterwards: the model is made to be cut.

    Args:
        model: The normalized model; it is not changed.
        analysis: Its analysis.
        keeps: What stays.
        inputs: Calibration data; every fourth sample judges.
        turned: Ids of groups that turned before: nothing can be gained there.
        progress: Called with the number of samples seen.

    Returns:
        The model, None where nothing was gained; and what was done to every weight.
    """
    groups = [group.id for group in analysis.groups if group.dim in keeps and group.id not in turned]
    sites = score_sites(model.graph, analysis, groups)
    if not sites:
        return None, ()
    moments_by_half = [_moments(model, sites, inputs, others, progress) for others in (True, False)]
    twin, outcomes, changed = model.clone(), [], False
    for site in sites:
        keep = keeps[site.group.dim].mask.reshape(-1, site.group.units)
        fit, judge, every = (
            _sides(site, moments) for moments in (moments_by_half[0], moments_by_half[1], moments_by_half)
        )
        errors = _errors(judge, keep, _matrices(fit, keep))
        gains = errors["scores"] < (1 - GAIN) * errors["none"]
        if gains:
            changed = True
            _fold(twin, site, keep, _matrices(every, keep))
        method = "scores" if gains else "none"
        sizes = (site.group.units, keeps[site.group.dim].count)
        where = (site.group.scope,)
        outcomes += [Outcome(weight.value, where, method, errors, sizes) for weight in site.weights]
    return (twin if changed else None), tuple(outcomes)


def _moments(
    model: ir.Model, sites: Sequence[ScoreSite], inputs: Inputs, others: bool, progress: SampleProgress | None
) -> HeadMoments:
    sides = [each for site in sites for each in (site.own, site.other)]
    moments = HeadMoments([(each.value, each.layout) for each in sides if each.layout is not None])
    part = replace(inputs, source=every_nth(inputs.source, HELD, HELD - 1, others=others))
    observe(model, part, [moments], progress=progress)
    return moments


def _sides(site: ScoreSite, moments: HeadMoments | Sequence[HeadMoments]) -> tuple[Floats, Floats]:
    """`[rows, units, units]` of the own side and of the other."""
    parts = [moments] if isinstance(moments, HeadMoments) else list(moments)

    def of(operand: Held) -> Floats:
        assert operand.layout is not None
        sums = np.sum([part.sums(operand.value, operand.layout) for part in parts], axis=0)
        if operand is site.keys:
            return np.stack([centred(m[:-1, :-1], m[-1, :-1], m[-1, -1]) for m in sums])
        return np.asarray(sums[:, :-1, :-1])

    return of(site.own), of(site.other)


def _matrices(sides: tuple[Floats, Floats], keep: Mask) -> list[Floats]:
    """By row what the dims of the own side that stay are multiplied by."""
    matrices = []
    for own, other, kept in zip(*sides, keep, strict=True):
        left, right = (_shifted(each[np.ix_(kept, kept)]) for each in (own, other))
        cross = own[kept] @ other[:, kept]
        matrices.append(np.asarray(np.linalg.solve(right, np.linalg.solve(left, cross).T).T))
    return matrices


def _shifted(moments: Floats) -> Floats:
    mean = float(np.trace(moments)) / max(len(moments), 1)
    return np.asarray(moments + (RIDGE * mean if mean > 0 else 1.0) * np.eye(len(moments)))


def _errors(sides: tuple[Floats, Floats], keep: Mask, matrices: Sequence[Floats]) -> dict[str, float]:
    """The error of the scores, relative to the scores, without and with the matrices."""
    total, squares = 0.0, {"none": 0.0, "scores": 0.0}
    for own, other, kept, matrix in zip(*sides, keep, matrices, strict=True):
        whole = float(np.vdot(own, other))
        total += whole
        for method, by in (("none", np.eye(int(kept.sum()))), ("scores", matrix)):
            cross = float(np.vdot(by, own[kept] @ other[:, kept]))
            after = float(np.vdot(by, own[np.ix_(kept, kept)] @ by @ other[np.ix_(kept, kept)]))
            squares[method] += whole - 2 * cross + after
    return {method: float(np.sqrt(max(square, 0.0) / max(total, 1e-30))) for method, square in squares.items()}


def _fold(model: ir.Model, site: ScoreSite, keep: Mask, matrices: Sequence[Floats]) -> None:
    units = site.group.units
    full = np.stack([np.eye(units)] * len(matrices))
    for row, (kept, matrix) in enumerate(zip(keep, matrices, strict=True)):
        full[row][np.ix_(kept, kept)] = matrix
    for weight in site.weights:
        assert weight.layout is not None
        put(model, {weight.value: weight.layout.times(read_initializer(model, weight.value), full)})
