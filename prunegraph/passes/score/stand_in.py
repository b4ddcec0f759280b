"""Who scores what nobody was asked to score: magnitude without data; with data activation, and SNP queries and keys."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from prunegraph.analysis.groups import Group
from prunegraph.passes.score.activation import Activation, uses
from prunegraph.passes.score.base import Context, Scorer
from prunegraph.passes.score.by_kind import FALLBACK, KindScorers
from prunegraph.passes.score.qk_scores import products
from prunegraph.passes.score.snp import Snp

logger = logging.getLogger(__name__)


def with_stand_ins(scorers: KindScorers, groups: Sequence[Group], context: Context) -> KindScorers:
    """The scorers with others for the groups that would fall back to magnitude, as far as those can see them.

    For use where data are given: what a unit weighs says little of what it is given, and what a dim of queries weighs
    little of the scores that it takes part in.
    """
    left = [group for group in groups if scorers.of_group(group) is FALLBACK]
    by_group: dict[str, Scorer] = dict.fromkeys(_seen_by_snp(left, context), Snp())
    activation = Activation()
    by_group |= {group.id: activation for group in left if group.kind in activation.kinds and _is_read(group, context)}
    if not by_group:
        return scorers
    for name, count in Counter(scorer.name for scorer in by_group.values()).items():
        logger.info("no scorer is asked for %d groups: they go by %s", count, name)
    return replace(scorers, by_group={**scorers.by_group, **by_group})


def _is_read(group: Group, context: Context) -> bool:
    """Whether a weight sums over its units."""
    solution = context.analysis.solution
    return any(use.weight in solution.weights for use in uses(context.model.graph, solution, group))


def _seen_by_snp(groups: Sequence[Group], context: Context) -> list[str]:
    """The groups of queries and keys whose products show both."""
    pairs = [group for group in groups if group.kind == "qk_dim"]
    if not pairs:
        return []
    hidden: set[int] = set()
    visible: set[int] = set()
    for leaves, _, site in products(context.model, context.analysis):
        (hidden if site is None else visible).update(leaves)
    return [group.id for group in pairs if group.dim in visible - hidden]
