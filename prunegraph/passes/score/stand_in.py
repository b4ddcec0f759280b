"""Who scores what nobody was asked to score: magnitude, but for the dims of queries and keys where there are data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from prunegraph.analysis.groups import Group
from prunegraph.passes.score.base import Context
from prunegraph.passes.score.by_kind import FALLBACK, KindScorers
from prunegraph.passes.score.qk_scores import products
from prunegraph.passes.score.snp import Snp

logger = logging.getLogger(__name__)


def with_stand_ins(scorers: KindScorers, groups: Sequence[Group], context: Context) -> KindScorers:
    """The scorers with SNP for `qk_dim` that would fall back to magnitude, as far as queries and keys can be seen.

    For use where data are given: what a dim of queries weighs says little of the scores that it takes part in.
    """
    left = [group for group in groups if group.kind == "qk_dim" and scorers.of_group(group) is FALLBACK]
    if not left:
        return scorers
    hidden: set[int] = set()
    visible: set[int] = set()
    for leaves, _, site in products(context.model, context.analysis):
        (hidden if site is None else visible).update(leaves)
    visible_groups = [group.id for group in left if group.dim in visible - hidden]
    if visible_groups:
        logger.info("no scorer is asked for qk_dim: %d groups go by snp", len(visible_groups))
    return replace(scorers, by_group={**scorers.by_group, **dict.fromkeys(visible_groups, Snp())})
