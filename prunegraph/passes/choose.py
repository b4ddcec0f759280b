"""Choose: observe what the scorer needs, score, and keep the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prunegraph.analysis.groups import Group
from prunegraph.analysis.selection import Selection
from prunegraph.observe.cache import default_cache
from prunegraph.observe.stream import Inputs
from prunegraph.options import Options
from prunegraph.passes.score import ACROSS, Context, observe_for, score_with, scores_kind
from prunegraph.passes.select import WHOLE_UNITS, counts_across, kept_count, select


def wanted(groups: Iterable[Group], options: Options) -> list[Group]:
    """Groups that these options make smaller, or may make smaller where all groups of a kind are ranked together."""
    return [
        group
        for group in groups
        if _kept(group, options) < group.units or (_ranked_across(group, options) and _ratio(group, options) > 0)
    ]


def seen(
    scorer: str, groups: Sequence[Group], context: Context, inputs: Inputs | None, progress: Callable[[int], None]
) -> Context:
    """The context with what the scorer needs observed, from the cache where it was seen before."""
    return observe_for([scorer], groups, context, inputs, cache=default_cache(), progress=progress)


def choice(groups: Sequence[Group], context: Context, options: Options) -> Selection:
    """Score groups and keep the best of each, or the best of all of a kind where the scorer's scores compare."""
    scores = score_with(options.scorer, groups, context)
    keep = {group.id: _kept(group, options) for group in groups}
    together = [group for group in groups if _ranked_across(group, options)]
    keep |= counts_across(together, scores, lambda group: _ratio(group, options))
    return select(groups, scores, keep)


def _ranked_across(group: Group, options: Options) -> bool:
    return options.scorer in ACROSS and scores_kind(options.scorer, group.kind) and not group.rows


def _kept(group: Group, options: Options) -> int:
    return kept_count(group.units, _ratio(group, options), 1 if group.kind in WHOLE_UNITS else options.align)


def _ratio(group: Group, options: Options) -> float:
    return options.ratio_of(group.kind, group.exact)
